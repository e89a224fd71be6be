//! See `softlan_fuzz::split`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softlan_fuzz::cost::hold(softlan_fuzz::split::check, data));
