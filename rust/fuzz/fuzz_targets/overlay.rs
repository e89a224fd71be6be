//! See `softlan_fuzz::overlay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softlan_fuzz::cost::hold(softlan_fuzz::overlay::check, data));
