//! See `softlan_fuzz::queue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softlan_fuzz::cost::hold(softlan_fuzz::queue::check, data));
