//! What a cgroup says of the processes in it: container, pod, systemd unit.
//!
//! | module | holds |
//! | --- | --- |
//! | [`names`] | what runtimes, the kubelet and systemd write into the names of cgroups |
//! | [`pods`] | the names of pods, by the kubelet's log directories |
//! | [`users`] | the names of users, by /etc/passwd |
//!
//! Container and pod count only where the superuser made the cgroup, and the
//! outermost of them, as in the programs: whoever may make cgroups may name them
//! as he likes. For the same reason nothing below a container's cgroup counts.

use std::{num::NonZero, sync::Arc};

use lru::LruCache;
use procid_common::policy::container::id_in;

use super::containers::{Cgroups, Place};
use crate::records::{self, Orchestrator, Record, Resource};
use names::{is_pods_root, pod_in, runtime, unit_in};
use pods::{Pod, Pods};

pub mod names;
pub mod pods;
pub mod users;

/// Cgroups that are remembered.
const KNOWN_MAX: NonZero<usize> = NonZero::new(4_096).expect("not 0");
/// Why what one would expect of a cgroup is absent.
const GONE: &str = "its cgroup was gone before it was looked at";
const NOT_KEPT: &str = "the history that told it is of a version that kept no path";
const NO_LOGS: &str = "the kubelet has no log directory for this pod";

/// What is known of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// From the hierarchy's root, safe to print.
    /// `None`: a history of schema version 1 did not keep it.
    pub path: Option<String>,
    pub container: Option<Container>,
    /// The pod's uid.
    pub pod: Option<String>,
    /// What the kubelet calls that pod.
    pub pod_names: Option<Arc<Pod>>,
    /// The outermost unit of systemd that is no slice.
    pub unit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Where its cgroup's name tells.
    pub runtime: Option<&'static str>,
}

impl Context {
    pub fn of(place: &Place) -> Self {
        let mut context = Self {
            path: Some(place.path()),
            ..Self::default()
        };
        let mut above: Option<&[u8]> = None;
        // Nobody else can have made a directory there.
        let mut in_roots = true;
        let mut in_pods = false;
        for part in &place.0 {
            if in_roots && context.unit.is_none() {
                context.unit = unit_in(&part.name);
            }
            if part.is_roots {
                if context.pod.is_none() {
                    context.pod = pod_in(&part.name, in_pods);
                }
                if let Some(id) = id_in(&part.name) {
                    context.container = Some(Container {
                        id: id.to_owned(),
                        runtime: runtime(&part.name, above),
                    });
                    break;
                }
            }
            in_pods |= is_pods_root(&part.name);
            in_roots &= part.is_roots;
            above = Some(&part.name);
        }
        context
    }

    /// Puts it into a record of a process in that cgroup.
    pub fn put(&self, record: &mut Record) {
        record.container = self.container.as_ref().map(|container| records::Container {
            id: container.id.clone(),
            runtime: container.runtime.map(str::to_owned),
        });
        let names = self.pod_names.as_deref();
        record.orchestrator = self.pod.as_ref().map(|uid| Orchestrator {
            orchestrator_type: "kubernetes".to_owned(),
            namespace: names.map(|names| names.namespace.clone()),
            resource: Resource {
                resource_type: "pod".to_owned(),
                id: uid.clone(),
                name: names.map(|names| names.name.clone()),
            },
        });
        let Some(procid) = record.procid.as_deref_mut() else {
            return;
        };
        if self.pod.is_some() && names.is_none() {
            for field in ["orchestrator.namespace", "orchestrator.resource.name"] {
                procid.unknown.insert(field.to_owned(), NO_LOGS.to_owned());
            }
        }
        if self.path.is_none() {
            procid
                .unknown
                .insert("procid.cgroup.path".to_owned(), NOT_KEPT.to_owned());
        }
        procid.unit.clone_from(&self.unit);
        if let Some(cgroup) = &mut procid.cgroup {
            cgroup.path.clone_from(&self.path);
        }
    }
}

/// Where somebody acted, and what the host called him.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within {
    /// `None`: his cgroup was gone before it was looked at.
    pub context: Option<Arc<Context>>,
    pub user: Option<Arc<str>>,
}

impl Within {
    /// Puts it into a record of what this user did.
    pub fn put(&self, record: &mut Record, uid: u32) {
        let process = record.process.as_deref_mut();
        let users = [
            record.user.as_mut(),
            process.and_then(|process| process.user.as_mut()),
        ];
        for user in users.into_iter().flatten() {
            if user.id.parse() == Ok(uid) {
                user.name = self.user.as_deref().map(str::to_owned);
            }
        }
        let procid = record.procid.as_ref();
        if procid.is_none_or(|procid| procid.cgroup.is_none()) {
            return;
        }
        match &self.context {
            Some(context) => context.put(record),
            None => put_gone(record),
        }
    }
}

/// Says of a record that nothing is known of its cgroup.
pub fn put_gone(record: &mut Record) {
    if let Some(procid) = record.procid.as_deref_mut() {
        for field in ["container.id", "procid.cgroup.path"] {
            procid.unknown.insert(field.to_owned(), GONE.to_owned());
        }
    }
}

/// The contexts of cgroups, by the cgroup's id.
#[derive(Debug)]
pub struct Contexts {
    cgroups: Box<dyn Cgroups>,
    pods: Pods,
    /// `None`: it was gone before it was looked at, or could not be.
    known: LruCache<u64, Option<Arc<Context>>>,
}

impl Contexts {
    pub fn new(cgroups: Box<dyn Cgroups>, pods: Pods) -> Self {
        Self {
            cgroups,
            pods,
            known: LruCache::new(KNOWN_MAX),
        }
    }

    /// Looks at a cgroup, if it was not looked at before: soon, because it may
    /// be removed with its last process. 0 is none.
    pub fn learn(&mut self, cgroup: u64) {
        if cgroup == 0 {
            return;
        }
        let cgroups = &self.cgroups;
        let known = self
            .known
            .get_or_insert_mut(cgroup, || match cgroups.place(cgroup) {
                Ok(place) => Some(Arc::new(Context::of(&place))),
                Err(error) => {
                    tracing::debug!(cgroup, %error, "a cgroup could not be looked at");
                    None
                }
            });
        if let Some(context) = known
            && let Some(uid) = &context.pod
            && context.pod_names.is_none()
            && let Some(names) = self.pods.of(uid)
        {
            Arc::make_mut(context).pod_names = Some(names);
        }
    }

    /// What was learned of a cgroup.
    pub fn get(&self, cgroup: u64) -> Option<&Arc<Context>> {
        self.known.peek(&cgroup)?.as_ref()
    }
}

#[cfg(test)]
mod tests;
