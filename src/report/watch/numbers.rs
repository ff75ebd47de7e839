//! Numbers in few columns.

use crate::humanize::count;

/// At most five columns; `-` for zero, so that other numbers stand out.
pub(super) fn short(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
    ];
    if n == 0 {
        return "-".to_owned();
    }
    if n < 10_000 {
        return count(n);
    }
    let unit = UNITS.into_iter().find(|&(size, _)| n >= size);
    let (size, unit) = unit.unwrap_or((1000, "k"));
    match n / size {
        whole @ 0..100 if unit != "k" => format!("{whole}.{}{unit}", n % size * 10 / size),
        whole => format!("{}{unit}", whole.min(9999)),
    }
}

/// At most five columns; 0 % and 100 % only if exact.
pub(super) fn percent(n: u64, all: u64) -> String {
    if n == 0 || all == 0 {
        return "-".to_owned();
    }
    // In u128 the product cannot overflow.
    match (u128::from(n) * 100 + u128::from(all) / 2) / u128::from(all) {
        0 => "<1 %".to_owned(),
        100.. if n < all => ">99 %".to_owned(),
        percent => format!("{} %", percent.min(100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_five_columns() {
        for (n, expected) in [
            (0, "-"),
            (9999, "9,999"),
            (10_000, "10k"),
            (999_999, "999k"),
            (1_290_000, "1.2M"),
            (123_000_000, "123M"),
            (u64::MAX, "9999P"),
        ] {
            assert_eq!(short(n), expected);
        }
        for digits in 0..20 {
            assert!(short(u64::MAX / 10u64.pow(digits)).len() <= 5);
        }
        for (n, all, expected) in
            [(0, 9, "-"), (1, 0, "-"), (1, 1000, "<1 %"), (999, 1000, ">99 %"), (9, 9, "100 %")]
        {
            assert_eq!(percent(n, all), expected);
        }
        assert_eq!(percent(u64::MAX, 1), "100 %");
    }
}
