//! Which names this host was told for an address.
//!
//! What is kept is what DNS answers said that reached a socket here: the name of
//! the question, for each address that the answer gives it. It is observed, and no
//! more: an answer can lie, and one address may bear a thousand names. So a name
//! is handed out with who asked for it, when, and which others there were.
//!
//! Of an address the newest names are kept, of addresses the ones last told of; a
//! name older than [`AGE_MAX_NS`] is not handed out, whatever the time to live of
//! its record: an application holds on to an address for as long as it likes.
//! Network namespaces are kept apart, since the same address may be another host
//! there.
//!
//! | module | holds |
//! | --- | --- |
//! | [`message`] | the bytes of an answer, and what they say |

use std::{net::IpAddr, num::NonZero, sync::Arc};

use lru::LruCache;
use procid_common::{answer::Answer, image::ImageId};

#[cfg(test)]
pub(crate) mod fixtures;
pub mod message;
#[cfg(test)]
mod tests;

/// Addresses of which names are kept.
pub const ADDRESSES_MAX: NonZero<usize> = NonZero::new(4_096).unwrap();
/// Names of one address, each by one image.
pub const NAMES_MAX: usize = 4;
/// Age at which a name says nothing any more of an address.
pub const AGE_MAX_NS: u64 = 3_600_000_000_000;

/// A name that was told for the destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub name: Arc<str>,
    /// The image whose socket the answer came to; [`ImageId::UNKNOWN`]: its socket
    /// was older than the hooks.
    pub asked_by: ImageId,
    /// When the answer came, nanoseconds since boot.
    pub at_ns: u64,
    /// Other names that were told for the address, the newest first.
    pub others: Box<[Arc<str>]>,
}

impl Domain {
    /// Whether that image asked for the name itself.
    pub fn is_asked_by(&self, image: &ImageId) -> bool {
        image.is_known() && self.asked_by == *image
    }

    /// Whether one of the names is `asked`, or lies below it.
    pub fn is_within(&self, asked: &str) -> bool {
        let asked = asked.trim_matches('.').to_ascii_lowercase();
        let is_it = |name: &str| {
            let rest = name.strip_suffix(&asked);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !asked.is_empty() && (is_it(&self.name) || self.others.iter().any(|name| is_it(name)))
    }
}

/// What was told once.
#[derive(Clone, Debug)]
struct Told {
    name: Arc<str>,
    by: ImageId,
    at_ns: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Names {
    /// By network namespace and address; the newest name of each is the last.
    told: LruCache<(u32, IpAddr), Vec<Told>>,
    answers: u64,
    unreadable: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self::with_capacity(ADDRESSES_MAX)
    }
}

impl Names {
    pub fn with_capacity(addresses: NonZero<usize>) -> Self {
        Self {
            told: LruCache::new(addresses),
            answers: 0,
            unreadable: 0,
        }
    }

    /// Takes in an answer.
    pub fn learn(&mut self, answer: &Answer) {
        self.answers += 1;
        let len = usize::try_from(answer.len).unwrap_or(usize::MAX);
        let bytes = answer.message.get(..len).unwrap_or(&answer.message);
        let (said, is_whole) = message::read(bytes);
        if !is_whole {
            self.unreadable += 1;
        }
        let Some(said) = said else { return };
        let told = Told {
            name: said.name.into(),
            by: answer.image,
            at_ns: answer.header.boot_ns,
        };
        for address in said.addresses {
            let key = (answer.netns, address);
            let names = self.told.get_or_insert_mut(key, Vec::new);
            names.retain(|one| one.name != told.name || one.by != told.by);
            if names.len() >= NAMES_MAX {
                names.remove(0);
            }
            names.push(told.clone());
        }
    }

    /// What `image` may have called that address at `at_ns`: the newest name that
    /// it asked for itself, else the newest that anyone in its network namespace
    /// did. `None`: nothing is known.
    pub fn of(&self, netns: u32, address: IpAddr, image: &ImageId, at_ns: u64) -> Option<Domain> {
        let names = self.told.peek(&(netns, address.to_canonical()))?;
        let since_ns = at_ns.saturating_sub(AGE_MAX_NS);
        let usable = || {
            let names = names.iter().rev();
            names.filter(|one| (since_ns..=at_ns).contains(&one.at_ns))
        };
        let own = usable().find(|one| one.by.is_known() && one.by == *image);
        let chosen = own.or_else(|| usable().next())?;
        let mut others: Vec<Arc<str>> = Vec::new();
        for one in usable() {
            if one.name != chosen.name && !others.contains(&one.name) {
                others.push(Arc::clone(&one.name));
            }
        }
        Some(Domain {
            name: Arc::clone(&chosen.name),
            asked_by: chosen.by,
            at_ns: chosen.at_ns,
            others: others.into(),
        })
    }

    /// Addresses that have names, and how many there may be.
    pub fn fill(&self) -> (usize, usize) {
        (self.told.len(), self.told.cap().get())
    }

    /// Answers so far.
    pub const fn answers(&self) -> u64 {
        self.answers
    }

    /// Those of them that could not be read, or not to their end.
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }
}
