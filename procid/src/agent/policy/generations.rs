//! Names of the rules of the last policies.

use std::{collections::VecDeque, sync::Arc};

/// Decisions are told of within seconds; policies are not changed that often.
const KEPT: usize = 16;

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct RuleName {
    /// `None`: the default decided.
    pub(in crate::agent) name: Option<Arc<str>>,
    /// SHA-256 of its policy, hexadecimal: `rule.version`.
    pub(in crate::agent) version: Arc<str>,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Generations(VecDeque<Generation>);

#[derive(Clone, Debug)]
struct Generation {
    number: u64,
    version: Arc<str>,
    names: Arc<[Arc<str>]>,
}

impl Generations {
    /// Adds a generation; one that is known already is the newest again.
    pub(super) fn put(&mut self, number: u64, version: Arc<str>, names: Vec<Arc<str>>) {
        self.0.retain(|generation| generation.number != number);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Generation {
            number,
            version,
            names: names.into(),
        });
    }

    /// Puts one rule's name as it was kept; others of its policy are not known.
    pub(in crate::agent) fn restore(
        &mut self,
        number: u64,
        version: &Arc<str>,
        rule: Option<(u32, &Arc<str>)>,
    ) {
        let known = self.0.iter().position(|it| it.number == number);
        let at = known.unwrap_or_else(|| {
            self.0.push_back(Generation {
                number,
                version: Arc::clone(version),
                names: Arc::default(),
            });
            self.0.len() - 1
        });
        let Some((index, name)) = rule else { return };
        let (Some(generation), Ok(index)) = (self.0.get_mut(at), usize::try_from(index)) else {
            return;
        };
        let mut names = generation.names.to_vec();
        if index >= names.len() {
            names.resize(index + 1, Arc::from(""));
        }
        names[index] = Arc::clone(name);
        generation.names = names.into();
    }

    pub(in crate::agent) fn rule(&self, number: u64, index: u32) -> Option<RuleName> {
        let generation = self.0.iter().find(|it| it.number == number)?;
        Some(RuleName {
            name: usize::try_from(index)
                .ok()
                .and_then(|index| generation.names.get(index))
                .cloned(),
            version: Arc::clone(&generation.version),
        })
    }
}

#[cfg(test)]
mod tests {
    use procid_common::policy::NO_RULE;

    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let mut generations = Generations::default();
        for number in 1..=20 {
            generations.put(number, "v".into(), vec![format!("rule {number}").into()]);
            // The first one comes into force again and again.
            generations.put(1, "first".into(), vec!["first".into()]);
        }
        let name = |number, index| generations.rule(number, index);
        assert_eq!(name(1, 0).unwrap().name.as_deref(), Some("first"));
        assert_eq!(name(20, 0).unwrap().name.as_deref(), Some("rule 20"));
        assert_eq!(name(20, NO_RULE).unwrap().name, None);
        assert_eq!(&*name(20, NO_RULE).unwrap().version, "v");
        assert_eq!(name(6, 0).unwrap().name.as_deref(), Some("rule 6"));
        assert_eq!(name(5, 0), None);
        assert_eq!(generations.0.len(), KEPT);
    }
}
