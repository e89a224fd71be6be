//! A thousand parties, and the proof that a broken one would be seen.
//!
//! `SOFTLAN_SEED=17 cargo test -p softlan-sim --test seeds` plays one seed, `SOFTLAN_SEEDS=1000000` so many.

use std::panic::catch_unwind;
use std::time::Instant;

use softlan_sim::{Broken, LOSS_PERMILLE, Sabotage, Summary, run};

const SEEDS: u64 = 1000;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Plays a seed; a panic is a broken invariant like any other.
fn play(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Broken> {
    catch_unwind(|| run(seed, sabotage)).unwrap_or_else(|_| Err(Broken("it panicked, see above".into())))
}

#[test]
fn every_invariant_holds_for_every_seed() {
    let seeds = match setting("SOFTLAN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("SOFTLAN_SEEDS").unwrap_or(SEEDS),
    };
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let mut sum = Summary::default();
    let mut by_loss = [Summary::default(); LOSS_PERMILLE.len()];
    for seed in seeds {
        match play(seed, None) {
            Ok(summary) => {
                sum += summary;
                by_loss[seed as usize % LOSS_PERMILLE.len()] += summary;
            }
            Err(broken) => panic!(
                "seed {seed}: {broken}\nplay it again with: SOFTLAN_SEED={seed} cargo test -p softlan-sim --test seeds"
            ),
        }
    }
    println!("{count} seeds in {:.1?}: {sum:?}", started.elapsed());
    // No idle runs: frames went all the ways there are.
    assert!(sum.delivered > sum.spoken / 2 && sum.dropped > 0, "{sum:?}");
    assert!(count < 4 || sum.lost > 0 && sum.reassembled > 0 && sum.given_up > 0, "{sum:?}");
    if count < 100 {
        return;
    }
    assert!(sum.resumed > count / 10 && sum.marked > 0, "{sum:?}");
    // All the weather there is, and as much of it as is meant.
    assert!(sum.dark > count && sum.too_large > count, "{sum:?}");
    assert!(sum.duplicated > sum.datagrams / 500 && sum.overtook > sum.datagrams / 20, "{sum:?}");
    for (permille, sum) in LOSS_PERMILLE.into_iter().zip(by_loss) {
        let lost = sum.lost * 1000 / (sum.datagrams - sum.dark - sum.too_large);
        println!("{permille} of 1000 lost by chance: {lost} were, {sum:?}");
        assert!(lost.abs_diff(permille) <= permille / 10, "{permille}: {lost}, {sum:?}");
    }
}

#[test]
fn every_fault_built_in_on_purpose_is_found() {
    for fault in Sabotage::ALL {
        let found = (0..40).filter(|seed| play(*seed, Some(fault)).is_err()).count();
        assert!(found >= 30, "{fault:?} was found with {found} of 40 seeds only");
    }
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..100 {
        let once = || format!("{:?}", play(seed, None));
        assert_eq!(once(), once(), "seed {seed}");
    }
}
