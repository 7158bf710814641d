"""Receipts: what publishers are told became of a notification, `{"delivered":3,"id":"0123456789abcdef-7"}`.

An id can't be known beforehand. So a test has its form checked and it taken off, and compares the rest exactly.

A module, nothing to run.
"""

import re

ID = r"[0-9a-f]{16}-[1-9][0-9]*"


def without_ids(text):
    """A text with receipts, each of which must have an id, without these."""
    bare, count = re.subn(rf',"id":"{ID}"', "", text)
    if count == 0 or count != bare.count('"delivered":'):
        raise SystemExit(f"a receipt needs an id of its own: {text[:200]}")
    return bare
