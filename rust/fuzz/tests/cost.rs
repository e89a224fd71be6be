//! A check that keeps memory or takes long is found, and one that only seems to is not.

use std::panic::catch_unwind;
use std::sync::OnceLock;
use std::thread;

use softlan_fuzz::cost::{LIMIT, hold, processor_time};

fn is_found(check: fn(&[u8]), data: &'static [u8]) -> bool {
    catch_unwind(|| hold(check, data)).is_err()
}

#[test]
fn memory_that_is_kept_each_time_is_found() {
    assert!(is_found(|data| std::mem::forget(data.to_vec()), b"x"));
    assert!(is_found(
        |data| {
            let mut grows = Vec::with_capacity(data.len());
            grows.extend([0; 100]);
            std::mem::forget(grows);
        },
        b"x"
    ));
    assert!(!is_found(|data| drop((data.to_vec(), vec![0; 5000], String::from("x") + "yz")), b"x"));
}

#[test]
fn memory_that_is_made_once_is_not() {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    assert!(!is_found(|data| assert_eq!(MADE.get_or_init(|| data.to_vec()), data), b"made once"));
}

#[test]
fn what_takes_long_is_found() {
    let works = |_: &[u8]| {
        let begun = processor_time();
        while processor_time() - begun <= LIMIT {}
    };
    assert!(is_found(works, b"x"));
}

#[test]
fn what_only_waits_is_not() {
    assert!(!is_found(|_| thread::sleep(LIMIT + LIMIT / 10), b"x"));
}
