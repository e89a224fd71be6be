//! See `softlan_fuzz::join`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softlan_fuzz::cost::hold(softlan_fuzz::join::check, data));
