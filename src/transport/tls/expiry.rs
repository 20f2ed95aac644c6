//! When a certificate expires: the one field of X.509 an operator wants on a dashboard.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Takes one DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let mut length = 0usize;
            for _ in 0x80..first {
                let (byte, tail) = rest.split_first()?;
                length = length.checked_mul(256)?.checked_add(usize::from(*byte))?;
                rest = tail;
            }
            length
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The end of a certificate's validity in seconds since 1970 (RFC 5280 section 4.1.2.5), or `None` where the bytes are
/// no certificate.
#[must_use]
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // version [0], where present; serial number; signature algorithm; issuer.
    if fields.first() == Some(&0xA0) {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    parse_time(tag, std::str::from_utf8(text).ok()?)
}

fn parse_time(tag: u8, text: &str) -> Option<i64> {
    let number = |part: Option<&str>| part?.parse::<i64>().ok();
    let (year, rest) = match tag {
        // UTCTime: years 50 to 99 are in the twentieth century.
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(Some(year))?;
            (year.checked_add(if year < 50 { 2000 } else { 1900 })?, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(Some(year))?, rest)
        }
        _ => return None,
    };
    let field = |at: usize| number(rest.get(at..at.checked_add(2)?));
    let (month, day) = (field(0)?, field(2)?);
    let (hour, minute, second) = (field(4)?, field(6)?, field(8)?);
    days_since_1970(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(hour.checked_mul(3_600)?)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)
}

/// Days since 1970-01-01 in the Gregorian calendar, by counting from a March that begins a 400-year cycle.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(0..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) =
        if month > 2 { (year, month.checked_sub(3)?) } else { (year.checked_sub(1)?, month.checked_add(9)?) };
    let leap_days = year.div_euclid(4).checked_sub(year.div_euclid(100))?.checked_add(year.div_euclid(400))?;
    let day_of_year = month.checked_mul(153)?.checked_add(2)?.div_euclid(5).checked_add(day)?;
    year.checked_mul(365)?.checked_add(leap_days)?.checked_add(day_of_year)?.checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_time_formats_give_the_seconds_since_1970() {
        assert_eq!(parse_time(0x17, "700101000000Z"), Some(0));
        assert_eq!(parse_time(0x17, "000229120000Z"), Some(951_825_600));
        assert_eq!(parse_time(0x17, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(parse_time(0x18, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(parse_time(0x18, "99991231235959Z"), Some(253_402_300_799));
        assert_eq!(parse_time(0x17, "7013"), None);
    }

    #[test]
    fn the_expiry_of_a_real_certificate_is_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["stun.example".to_owned()]).expect("parameters");
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = parameters.self_signed(&key).expect("certificate");
        assert_eq!(not_after(certificate.der()), Some(1_935_792_000));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }
    }
}
