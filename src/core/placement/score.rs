//! The arithmetic of placement: a node's score for a prefix, in integers only, so that every
//! machine computes the same bits. Owns the tables; which nodes compete is `placement`'s.
//!
//! # Definition (part of the protocol; a change is a new version)
//!
//! * The *seed* of a node is the first 8 bytes, little-endian, of BLAKE3 `derive_key("p2pfs 2026-11
//!   placement v1", node key)`.
//! * `x(node, prefix)` is output number `prefix + 1` of SplitMix64 (Steele, Lea, Flood, OOPSLA
//!   2014) begun at the seed.
//! * `cost(x) = -log2((x + ½) / 2^64)` in units of 2^-57, by [`neg_log2`].
//! * A capacity counts as `2^(q/4)`, `q = floor(4 log2 capacity)`; the *race time* is `cost /
//!   2^(q/4)`.
//!
//! The nodes in the order of their race times are the candidates. With `u` uniform, `-ln u / w` is
//! exponential with rate `w`, and the first of several exponentials is node `i` with probability
//! `w_i / Σ w`: shares in proportion to capacity, and a node that comes or goes moves only its own
//! (weighted rendezvous hashing; Schindelhauer and Schomaker 2005). The base of the logarithm is
//! one factor for all and changes nothing.

use crate::id::NodeId;

/// Fraction bits of a cost.
const FRACTION: u32 = 57;

/// The table has a step per 2^-10 of the mantissa.
const STEPS: usize = 1 << 10;

/// `log2(1 + i / STEPS)` in units of 2^-57, rounded down.
static LOG2: [u64; STEPS + 1] = log2_table();

/// `2^(-j/4)` in units of 2^-62, rounded to the nearest.
const QUARTER_POWERS: [u64; 4] = [
    4_611_686_018_427_387_904,
    3_877_950_241_171_266_237,
    3_260_954_456_333_195_553,
    2_742_124_912_636_209_756,
];

/// `2^(j/4)` in units of 2^-63, rounded up: where the mantissa of a capacity reaches the next step.
const QUARTER_STEPS: [u64; 3] =
    [10_968_499_650_544_839_024, 13_043_817_825_332_782_213, 15_511_800_964_685_064_949];

/// What a node brings to every race.
pub(super) fn seed_of(node: &NodeId) -> u64 {
    let hash = blake3::derive_key("p2pfs 2026-11 placement v1", &node.0);
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// `floor(4 log2 capacity)`: steps of 19 %, so that a capacity that moves a little moves nothing.
pub(super) fn quantise(capacity: u64) -> u8 {
    let Some(whole) = capacity.checked_ilog2() else { return 0 };
    let mantissa = capacity << (63 - whole);
    let quarters = QUARTER_STEPS.iter().filter(|step| mantissa >= **step).count();
    (whole * 4) as u8 + quarters as u8
}

/// The time at which the node with this seed and quantised capacity ends the race for `prefix`;
/// the earliest wins. Below 2^126.
#[inline]
pub(super) fn race_time(seed: u64, quantised: u8, prefix: u32) -> u128 {
    let cost = u128::from(neg_log2(split_mix(seed, prefix)));
    (cost * u128::from(QUARTER_POWERS[usize::from(quantised & 3)])) >> (quantised >> 2)
}

#[inline]
fn split_mix(seed: u64, prefix: u32) -> u64 {
    let mut x = seed.wrapping_add((u64::from(prefix) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `-log2((x + ½) / 2^64)` in units of 2^-57, always above zero.
///
/// The logarithm of the mantissa is interpolated in [`LOG2`]. A chord lies below the curve by at
/// most h²/8 · log2 e = 1.72e-7 (h = 2^-10), and where the result is smallest, near `x = 2^64`,
/// where the winners are, the chord ends exactly in 1: the *relative* error is below 2^-11
/// everywhere.
#[inline]
fn neg_log2(x: u64) -> u64 {
    // With the half, every x has a logarithm: 65-bit fixed point with one fraction bit, normalised.
    let zeros = x.leading_zeros();
    let (mantissa, whole) = if zeros == 64 {
        (1 << 63, 0)
    } else {
        // Shifting in a one where the half would be; at no shift it lies below the last bit.
        (x << zeros | if zeros > 0 { 1 << (zeros - 1) } else { 0 }, 64 - zeros)
    };
    let index = (mantissa >> 53) as usize & (STEPS - 1);
    let rest = mantissa & ((1 << 53) - 1);
    let step = LOG2[index + 1] - LOG2[index];
    let log = LOG2[index] + ((u128::from(step) * u128::from(rest)) >> 53) as u64;
    // (x + ½) = mantissa / 2^63 · 2^(whole - 1); so -log2(.. / 2^64) = 65 - whole - log.
    (u64::from(65 - whole) << FRACTION) - log
}

const fn log2_table() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut i = 0;
    while i <= STEPS {
        table[i] = log2_of((STEPS + i) as u128);
        i += 1;
    }
    table
}

/// `log2(m / STEPS)` for `m` from `STEPS` to `2 * STEPS`, bit by bit: squaring doubles the
/// logarithm, and a square of 2 or more gives a one and is halved. 62 fraction bits; each
/// truncation weighs half of the one before, so the result is right to 2^-60 before it is cut to 57
/// bits.
const fn log2_of(m: u128) -> u64 {
    if m == (2 * STEPS) as u128 {
        return 1 << FRACTION;
    }
    let mut value = (m << 62) / STEPS as u128;
    let mut log = 0;
    let mut bit = 0;
    while bit < FRACTION {
        value = (value * value) >> 62;
        log <<= 1;
        if value >= 1 << 63 {
            log |= 1;
            value >>= 1;
        }
        bit += 1;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        assert_eq!(LOG2[1], 202_942_199_766_946);
        assert_eq!(LOG2[512], 84_301_980_808_752_399);
        assert_eq!(LOG2[1023], 144_013_642_644_214_005);
        let costs = [0, 1, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX].map(neg_log2);
        let expected = [
            9_367_487_224_930_631_680,
            9_139_070_056_046_023_409,
            4_611_686_018_403_195_309,
            144_115_188_075_855_872,
            1,
            1,
        ];
        assert_eq!(costs, expected);
        assert_eq!(seed_of(&NodeId([7; 32])), 6_804_979_787_716_511_960);
        assert_eq!(split_mix(42, 0), 13_679_457_532_755_275_413);
        assert_eq!(race_time(42, 163, 0xfffff), 68_157_738_697_644_851_630_705);
    }

    #[test]
    fn costs_are_logarithms_to_the_promised_precision() {
        let mut worst = 0f64;
        for i in 0..200_000u32 {
            let x = split_mix(1, i) | if i % 2 == 0 { u64::MAX << (i % 53) } else { 0 };
            let missing = (u128::from(u64::MAX) + 1 - u128::from(x)) as f64 - 0.5;
            let exact = -(-missing / 2f64.powi(64)).ln_1p() / std::f64::consts::LN_2;
            let found = neg_log2(x) as f64 / 2f64.powi(57);
            if missing > 1e6 {
                worst = worst.max(((found - exact) / exact).abs());
            }
        }
        assert!(worst < 2f64.powi(-11), "{worst}");
    }

    #[test]
    fn capacities_fall_into_steps_of_nineteen_percent() {
        assert_eq!([0, 1, 2, 3, 4, u64::MAX].map(quantise), [0, 0, 4, 6, 8, 255]);
        for capacity in [1u64 << 30, 500_107_862_016, 3_000_592_982_016] {
            let exact = (capacity as f64).log2() * 4.0;
            assert_eq!(f64::from(quantise(capacity)), exact.floor());
        }
    }
}
