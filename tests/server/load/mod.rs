//! More than the server wants: attacks, floods, full budgets, clients that don't read.

mod attacks;
mod behind;
mod floods;
mod overload;
mod slow_readers;
