"""A crowd of WebSocket clients on one epoll, and a ledger that says what each of them must get.

What tests/suites/faults/run and tests/suites/soak/run share. Python 3.11, standard library only, Linux only.
"""
