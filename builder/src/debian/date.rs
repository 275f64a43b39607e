//! Times as Release files and messages write them.

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of `Sat, 11 Jul 2026 10:16:37 UTC`.
pub fn parse(text: &str) -> Option<i64> {
    let mut words = text.split_once(',').map_or(text, |(_, rest)| rest).split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let time: Vec<i64> = words.next()?.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = time[..] else { return None };
    let good = (1..=31).contains(&day)
        && (1970..10_000).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    // The only zone that Debian writes; apt takes no other either.
    let in_utc = matches!(words.next()?, "UTC" | "GMT" | "+0000" | "Z");
    (good && in_utc).then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `2026-07-11 10:16 UTC`
pub fn format(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The reverse of `days`, by Howard Hinnant's `civil_from_days`.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let date = of_year - (153 * shifted_month + 2) / 5 + 1;
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

/// Days since 1970-01-01 (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        // `date -ud '2026-07-11 10:16:37' +%s`
        assert_eq!(parse("Sat, 11 Jul 2026 10:16:37 UTC"), Some(1_783_764_997));
        assert_eq!(format(1_783_764_997), "2026-07-11 10:16 UTC");
        assert_eq!(format(0), "1970-01-01 00:00 UTC");
        assert_eq!(format(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(format(951_782_400), "2000-02-29 00:00 UTC");
        for bad in [
            "",
            "Sat, 11 Jul 2026",
            "Sat, 11 Jul 2026 10:16:37 CEST",
            "Sat, 11 Foo 2026 10:16:37 UTC",
            "1 Jan 2026 1:2 UTC",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
