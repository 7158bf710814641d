//! The unwinder of a program without the tables that unwinding needs: the static one (`.ci/static`).
//!
//! Nothing unwinds where a panic aborts, and without tables and symbols a backtrace is empty. What the standard library
//! has for printing one is 190 KiB nevertheless, unless the compiler sees that no frame is ever found. These two
//! functions take the place of those in the C compiler's library, and let it see that.
#![expect(unsafe_code, reason = "190 KiB less in the static program")]

use std::ffi::{c_int, c_void};
use std::process::abort;

/// Finds no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_found: *const c_void, _argument: *mut c_void) -> c_int {
    0
}

/// Goes on with a panic that unwinds; there is none.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    abort()
}
