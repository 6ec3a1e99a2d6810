//! The commands of the `bpf` system call that aya does not have.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `BPF_MAP_GET_NEXT_KEY`, `BPF_OBJ_GET`, `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, `BPF_LINK_UPDATE`, `BPF_MAP_LOOKUP_BATCH`.
const NEXT_KEY: libc::c_long = 4;
const GET: libc::c_long = 7;
const TAKE: libc::c_long = 21;
const UPDATE: libc::c_long = 29;
const LOOKUP_BATCH: libc::c_long = 24;

#[repr(C)]
struct Get {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct NextKey {
    map: u32,
    pad: u32,
    key: u64,
    next: u64,
}

#[repr(C)]
struct Take {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct LookupBatch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[expect(unsafe_code, reason = "the system call itself")]
fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes as many bytes of the attributes as it is told, and what they point to is the caller's
    // for as long as the call takes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn number(descriptor: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(descriptor.as_raw_fd()).map_err(io::Error::other)
}

/// Lets a pinned link run another program from the next packet on.
#[expect(unsafe_code, reason = "a descriptor that the kernel has just made")]
pub(crate) fn replace(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut get = Get {
        path: path.as_ptr().expose_provenance() as u64,
        descriptor: 0,
        flags: 0,
    };
    let descriptor = i32::try_from(call(GET, &mut get)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut update = Update {
        link: number(link.as_fd())?,
        program: number(program)?,
        flags: 0,
        old_program: 0,
    };
    call(UPDATE, &mut update)?;
    Ok(())
}

/// Takes an entry out of a hash map and returns what its value was at that moment, or nothing if there is none. `K` and `V` are
/// plain data as large as the map's.
pub(crate) fn take<K: aya::Pod, V: aya::Pod + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut take = Take {
        map: number(map)?,
        pad: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: (&raw mut value).expose_provenance() as u64,
        flags: 0,
    };
    match call(TAKE, &mut take) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many keys a map has, `most` at most, whatever they mean: each is so many bytes.
pub(crate) fn count(map: BorrowedFd<'_>, key_size: usize, most: usize) -> io::Result<usize> {
    let (mut key, mut next) = (vec![0_u8; key_size], vec![0_u8; key_size]);
    for count in 0..most {
        let mut next_key = NextKey {
            map: number(map)?,
            pad: 0,
            // Without a key the first one is asked for.
            key: if count == 0 {
                0
            } else {
                key.as_ptr().expose_provenance() as u64
            },
            next: next.as_mut_ptr().expose_provenance() as u64,
        };
        match call(NEXT_KEY, &mut next_key) {
            Ok(_) => std::mem::swap(&mut key, &mut next),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(count),
            Err(error) => return Err(error),
        }
    }
    Ok(most)
}

/// How many entries of a map are read by one call.
const AT_ONCE: usize = 1024;

/// Where in a map a reading goes on: at its beginning, or where the kernel said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(Option<u32>);

impl Place {
    /// A place in a map of a test's.
    #[cfg(test)]
    pub(crate) const fn at(number: u32) -> Self {
        Self(Some(number))
    }

    /// Whether nothing of the map was read yet, or all of it was.
    pub(crate) const fn is_beginning(self) -> bool {
        self.0.is_none()
    }
}

/// Calls with so many entries of a hash map, or a few more, from a place on. Returns where it goes on: the beginning after the
/// end. Over all parts, what is there all the while is seen once, others perhaps. `K` and `V` are plain data as large as the
/// map's.
pub(crate) fn part<K: aya::Pod + Default, V: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    Place(mut from): Place,
    most: usize,
    mut each: impl FnMut(&K, &V),
) -> io::Result<Place> {
    let map = number(map)?;
    let (mut keys, mut values) = (vec![K::default(); AT_ONCE], vec![V::default(); AT_ONCE]);
    let mut to = 0_u32;
    let mut seen = 0;
    while seen < most {
        let mut batch = LookupBatch {
            from: from
                .as_mut()
                .map_or(0, |from| (&raw mut *from).expose_provenance() as u64),
            to: (&raw mut to).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(AT_ONCE).unwrap_or(u32::MAX),
            map,
            element_flags: 0,
            flags: 0,
        };
        let result = call(LOOKUP_BATCH, &mut batch);
        let is_over = match result {
            Ok(_) => false,
            // The last entries come with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let count = usize::try_from(batch.count).unwrap_or(0).min(AT_ONCE);
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(key, value);
        }
        seen += count;
        if is_over {
            return Ok(Place::default());
        }
        from = Some(to);
    }
    Ok(Place(from))
}
