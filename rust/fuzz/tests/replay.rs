//! Replays the committed corpus without libFuzzer: every finding stays found, and every seed is still one.

use std::fs;
use std::path::Path;

use softlan_fuzz::cost;

/// Bytes of the whole corpus at most: it is for what is worth keeping, not for what a run happens to find.
const MOST: u64 = 300_000;

#[test]
fn the_corpus_keeps_every_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut total = 0;
    for (name, check) in softlan_fuzz::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).expect("each target has a corpus") {
            let path = entry.expect("it can be listed").path();
            let input = fs::read(&path).expect("it can be read");
            let name = path.file_name().expect("it has a name").to_string_lossy();
            // cargo-fuzz puts more beside what is committed.
            if ["seed-", "found-", "kept-"].iter().any(|kind| name.starts_with(kind)) {
                total += input.len() as u64;
                inputs += 1;
            }
            // The path of the input, should its check panic.
            println!("{}", path.display());
            cost::hold(check, &input);
        }
        assert!(inputs > 0, "the corpus of {name} is empty");
    }
    assert!(total <= MOST, "the corpus has {total} bytes");
}

#[test]
fn every_target_has_its_program_and_its_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| {
        let mut names: Vec<_> = fs::read_dir(root.join(folder))
            .expect("it is there")
            .map(|entry| entry.expect("it can be listed").path().file_stem().expect("named").to_owned())
            .collect();
        names.sort();
        names
    };
    let targets: Vec<std::ffi::OsString> =
        softlan_fuzz::TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}
