//! The C library's heap, kept as small as what is in it.
//!
//! Left alone the allocator keeps a heap for each thread, of which each grows to what its largest round took, raises with every large
//! piece what it keeps, so that tables stay resident after they were outgrown, and gives back only what lies behind the last piece
//! in use.

/// One heap for all threads. Called before there is a second one.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "settings of the C library")]
pub fn share() {
    const LARGE: libc::c_int = 128 * 1024;
    // SAFETY: no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives every page that holds nothing back to the kernel. It takes some milliseconds for each hundred MiB.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a function of the C library")]
pub fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub const fn share() {}

/// Other C libraries give it back themselves.
#[cfg(not(target_env = "gnu"))]
pub const fn give_back() {}
