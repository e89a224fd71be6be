//! See `softlan_fuzz::reassembly`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softlan_fuzz::cost::hold(softlan_fuzz::reassembly::check, data));
