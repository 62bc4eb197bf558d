//! Whether percent-encoded text can be decoded
//! ([RFC 3986](https://www.rfc-editor.org/rfc/rfc3986#section-2.1)).

/// Every `%` is followed by two hexadecimal digits, and the bytes they stand
/// for are UTF-8.
pub(super) fn decodes(text: &[u8]) -> bool {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|&b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return false;
        };
        out.extend(u8::try_from(high << 4 | low));
        rest = after.get(2..).unwrap_or_default();
    }
    std::str::from_utf8(&out).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_for_no_text_is_found() {
        for fine in ["", "a=b", "%25", "%c3%a9%C3%A9", "%00"] {
            assert!(decodes(fine.as_bytes()), "{fine}");
        }
        for bad in ["%", "a%", "%2", "%zz", "%2g", "%ff", "%c3", "%+1"] {
            assert!(!decodes(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(text in any::<String>()) {
            let encoded = serde_urlencoded::to_string([("a", text)]).unwrap();
            prop_assert!(decodes(encoded.as_bytes()));
        }
    }
}
