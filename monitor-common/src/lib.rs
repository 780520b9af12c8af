//! Types that the kernel side and the user side share.
#![no_std]
