//! The bytes of a DNS answer, and what they say.
//!
//! They are whoever's: nothing here trusts a length or a pointer in them, and what
//! ends early says what it said by then.

use std::net::IpAddr;

use domain::{
    base::{
        Message, ParsedName, Rtype,
        iana::{Class, Rcode},
        message::RecordSection,
        wire::ParseError,
    },
    rdata::{A, Aaaa, Cname},
};

/// Records of one answer that are looked at, and links of a chain of names.
const RECORDS_MAX: usize = 256;
const CHAIN_MAX: usize = 16;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What was asked for: lower case, in the form of
    /// [RFC 1035](https://www.rfc-editor.org/rfc/rfc1035#section-5.1), where a byte
    /// that does not print, or would not stand for itself, is escaped.
    pub name: String,
    /// Addresses of that name, or of the one that it is an alias of.
    pub addresses: Vec<IpAddr>,
}

type Name<'a> = ParsedName<&'a [u8]>;

/// Reads an answer; `None` where it gives a name no address. Also says whether all
/// of it could be read.
pub fn read(bytes: &[u8]) -> (Option<Said>, bool) {
    match try_read(bytes) {
        Ok((said, is_whole)) => (said, is_whole),
        Err(_) => (None, false),
    }
}

fn try_read(bytes: &[u8]) -> Result<(Option<Said>, bool), ParseError> {
    let message = Message::from_octets(bytes).map_err(|_| ParseError::ShortInput)?;
    let header = message.header();
    if !header.qr() || header.rcode() != Rcode::NOERROR {
        return Ok((None, true));
    }
    let question = message.sole_question()?;
    let is_asked = matches!(question.qtype(), Rtype::A | Rtype::AAAA | Rtype::ANY);
    if question.qclass() != Class::IN || !is_asked || question.qname().iter().count() < 2 {
        return Ok((None, true));
    }
    let answer = message.answer()?;
    let names = chain(*question.qname(), answer);
    let mut addresses = Vec::new();
    let mut is_whole = true;
    for record in answer.take(RECORDS_MAX) {
        let Ok(record) = record else {
            is_whole = false;
            break;
        };
        if record.class() != Class::IN || !names.iter().any(|name| *name == record.owner()) {
            continue;
        }
        let address = match record.rtype() {
            Rtype::A => record
                .to_record::<A>()
                .map(|it| it.map(|it| IpAddr::V4(it.data().addr()))),
            Rtype::AAAA => record
                .to_record::<Aaaa>()
                .map(|it| it.map(|it| IpAddr::V6(it.data().addr()))),
            _ => continue,
        };
        match address {
            Ok(Some(address)) => {
                let address = address.to_canonical();
                // Blocking resolvers give this for what they do not let through.
                if !address.is_unspecified() && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Ok(None) => {}
            Err(_) => is_whole = false,
        }
    }
    let said = (!addresses.is_empty()).then(|| Said {
        name: question.qname().to_string().to_ascii_lowercase(),
        addresses,
    });
    Ok((said, is_whole))
}

/// A name and those that it is an alias of, in whatever order the records come.
fn chain<'a>(asked: Name<'a>, answer: RecordSection<'a, &'a [u8]>) -> Vec<Name<'a>> {
    let records = answer.take(RECORDS_MAX).map_while(Result::ok);
    let aliases: Vec<(Name<'a>, Name<'a>)> = records
        .filter_map(|record| {
            let cname = record.to_record::<Cname<_>>().ok().flatten()?;
            Some((*cname.owner(), cname.into_data().into_cname()))
        })
        .collect();
    let mut names = vec![asked];
    while names.len() < CHAIN_MAX
        && let Some(last) = names.last()
        && let Some((_, next)) = aliases.iter().find(|(owner, _)| owner == last)
        && !names.contains(next)
    {
        names.push(*next);
    }
    names
}
