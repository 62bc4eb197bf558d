//! How much a record is to be noticed, in the words of syslog
//! ([RFC 5424, section 6.2.1](https://www.rfc-editor.org/rfc/rfc5424#section-6.2.1)).

/// "Private" messages of security: most hosts keep them from ordinary users.
pub const AUTHPRIV: u8 = 10;

const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// The severity of a record, by its action, outcome and verdict.
pub fn of(action: &str, outcome: Option<&str>, verdict: Option<&str>) -> u8 {
    match (action, outcome, verdict) {
        ("loss", ..) | ("policy", Some("failure"), _) | (_, _, Some("deny")) => WARNING,
        ("policy", ..) | (_, _, Some("audit")) => NOTICE,
        _ => INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_denied_lost_or_failed_is_a_warning() {
        assert_eq!(of("connect", Some("success"), Some("deny")), WARNING);
        assert_eq!(of("connect", Some("success"), Some("audit")), NOTICE);
        assert_eq!(of("connect", Some("failure"), Some("allow")), INFO);
        assert_eq!(of("policy", Some("failure"), None), WARNING);
        assert_eq!(of("policy", Some("success"), None), NOTICE);
        assert_eq!(of("loss", None, None), WARNING);
    }
}
