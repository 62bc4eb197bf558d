//! Records of what became of the policy.

use procid_common::image::ImageId;

use super::{Head, Renderer, absent};
use crate::{
    agent::policy::ask::Caller,
    records::{PolicyChange, Procid, Record, Rule, User, escape::escape},
};

/// A change, or one that was refused.
#[derive(Clone, Debug)]
pub(in crate::agent) struct PolicyNews {
    /// As `procid.policy.change` has it.
    pub(in crate::agent) change: &'static str,
    pub(in crate::agent) caller: Caller,
    /// The caller's image, where it is known.
    pub(in crate::agent) image: Option<ImageId>,
    /// Why it was refused.
    pub(in crate::agent) failure: Option<String>,
    /// Of the policy that the change is about; `None`: no policy.
    pub(in crate::agent) sha256: Option<String>,
    /// In force now; 0: none.
    pub(in crate::agent) generation: u64,
    /// A temporary rule's name, and why there is one.
    pub(in crate::agent) rule: Option<String>,
    pub(in crate::agent) reason: Option<String>,
    pub(in crate::agent) confirm_by: Option<String>,
}

impl Renderer<'_> {
    /// `policy`.
    pub(in crate::agent) fn policy(&self, news: PolicyNews, at_ns: u64) -> Record {
        let mut record = self.record(&Head {
            action: "policy",
            dataset: "procid.policy",
            category: Some("configuration"),
            types: &["change"],
            is_state: false,
            at_ns,
        });
        let mut procid = Box::new(Procid {
            generation: (news.generation != 0).then_some(news.generation),
            policy: Some(PolicyChange {
                change: news.change.to_owned(),
                confirm_by: news.confirm_by,
            }),
            ..Procid::default()
        });
        self.put_caller(&mut record, &mut procid, news.caller, news.image);
        if let Some(event) = &mut record.event {
            let is_done = news.failure.is_none();
            event.outcome = Some(if is_done { "success" } else { "failure" }.to_owned());
            let reason = news.failure.or(news.reason);
            event.reason = reason.map(|reason| escape(reason.as_bytes()).into_owned());
        }
        if news.sha256.is_none() {
            absent(&mut procid, "rule.version", "there is no policy");
        }
        if news.rule.is_some() || news.sha256.is_some() {
            record.rule = Some(Rule {
                name: news.rule.map(|name| escape(name.as_bytes()).into_owned()),
                version: news.sha256,
            });
        }
        record.procid = Some(procid);
        record
    }

    /// Who asked, with the user the kernel noted.
    fn put_caller(
        &self,
        record: &mut Record,
        procid: &mut Procid,
        caller: Caller,
        image: Option<ImageId>,
    ) {
        if let Some(image) = image {
            self.put_image(record, procid, &image);
        }
        match caller {
            Caller::Peer { pid, uid } => {
                let user = Some(User {
                    id: uid.to_string(),
                    name: None,
                });
                let process = record.process.get_or_insert_default();
                if image.is_none() {
                    process.pid = pid;
                    absent(procid, "process.entity_id", "its exec was not seen");
                }
                process.user.clone_from(&user);
                record.user = user;
            }
            Caller::Agent if image.is_some() => {}
            Caller::Agent => absent(procid, "process", "the agent's own exec was not seen"),
            Caller::Signal => {
                absent(procid, "process", "a signal does not say who sent it");
            }
            Caller::Clock => absent(procid, "process", "nobody asked for it: time passed"),
        }
    }
}
