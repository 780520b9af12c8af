//! Memory of the process that runs into a probe.

use core::mem::MaybeUninit;

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// Types that are valid for any bytes.
pub trait AnyBytes: Copy {}
impl AnyBytes for u8 {}
impl AnyBytes for u64 {}
impl<const N: usize> AnyBytes for [u8; N] {}

/// What stands at an address; `None` when it cannot be read.
#[inline(always)]
pub fn read<T: AnyBytes>(from: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: so many bytes are read as there is room for, and by its trait the type takes any; or none.
    unsafe {
        let to = value.as_mut_ptr().cast();
        let failed = bpf_probe_read_user(to, size_of::<T>() as u32, from as *const c_void);
        (failed == 0).then(|| value.assume_init())
    }
}
