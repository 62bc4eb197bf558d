//! What was found, and the tree of its process images.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    flow::Query,
    records::{Coverage, HashState, Process, Record},
};

/// What a page is made of.
#[derive(Debug)]
pub struct Case {
    pub query: Query,
    /// Records of connections, oldest first.
    pub connections: Vec<Record>,
    /// `None`: whoever answered did not say.
    pub coverage: Option<Coverage>,
    pub tree: Tree,
}

impl Case {
    /// Of the records of an answer, its coverage among them, and of records of
    /// images that are named in it.
    pub fn new(query: Query, records: Vec<Record>, images: Vec<Record>) -> Self {
        let mut coverage = None;
        let mut connections = Vec::with_capacity(records.len());
        for mut record in records {
            match record.procid.as_mut().and_then(|it| it.coverage.take()) {
                Some(found) => coverage = Some(found),
                None => connections.push(record),
            }
        }
        connections.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
        let mut tree = Tree::default();
        for (at, record) in connections.iter().enumerate() {
            tree.put_connection(at, record);
        }
        for record in images {
            tree.put_image(&record);
        }
        tree.link();
        Self {
            query,
            connections,
            coverage,
            tree,
        }
    }
}

/// One process image.
#[derive(Debug, Default)]
pub struct Node {
    /// `None`: it is named as an ancestor, and nothing else is known of it.
    pub process: Option<Process>,
    pub hash: Option<HashState>,
    /// The script that it interprets.
    pub script: Option<String>,
    pub user: Option<String>,
    pub container: Option<String>,
    pub unit: Option<String>,
    pub loginuid: Option<u32>,
    /// Of the parent.
    pub parent: Option<String>,
    /// Places of its connections, oldest first.
    pub connections: Vec<usize>,
    /// Of its children, in the order of their start.
    pub children: Vec<String>,
}

/// The images of a case by their entity ids, parents and children.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: HashMap<String, Node>,
    /// Those without a parent among them.
    pub roots: Vec<String>,
    /// Places of connections whose process is not known, by the reason.
    pub unknown: BTreeMap<String, Vec<usize>>,
}

impl Tree {
    pub fn images(&self) -> usize {
        self.nodes.len()
    }

    pub fn get(&self, entity: &str) -> Option<&Node> {
        self.nodes.get(entity)
    }

    /// All images in the order of their start; those without one come first.
    pub fn in_order(&self) -> Vec<(&str, &Node)> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .map(|(entity, node)| (entity.as_str(), node))
            .collect();
        all.sort_by_key(|&(entity, node)| (start(node), entity));
        all
    }

    fn put_connection(&mut self, at: usize, record: &Record) {
        let Some(entity) = entity_of(record.process.as_deref()) else {
            let procid = record.procid.as_deref();
            let reason = procid
                .and_then(|procid| procid.unknown.get("process"))
                .map_or("no reason was given", String::as_str);
            let places = self.unknown.entry(reason.to_owned()).or_default();
            places.push(at);
            return;
        };
        let entity = entity.to_owned();
        self.put_image(record);
        if let Some(node) = self.nodes.get_mut(&entity) {
            node.connections.push(at);
        }
        if let Some(procid) = &record.procid
            && let Some(opener) = &procid.opener
        {
            self.put_process(opener);
        }
    }

    /// Takes in what a record says of the image that it is about.
    fn put_image(&mut self, record: &Record) {
        let Some(process) = record.process.as_deref() else {
            return;
        };
        let Some(entity) = self.put_process(process) else {
            return;
        };
        let Some(procid) = record.procid.as_deref() else {
            return;
        };
        let mut line = vec![entity.clone()];
        line.extend(procid.ancestry.iter().flatten().cloned());
        for pair in line.windows(2) {
            let node = self.nodes.entry(pair[0].clone()).or_default();
            node.parent.get_or_insert_with(|| pair[1].clone());
            self.nodes.entry(pair[1].clone()).or_default();
        }
        let parent_hash = procid
            .parent
            .as_ref()
            .and_then(|parent| parent.hash.clone());
        let parent = process
            .parent
            .as_deref()
            .and_then(|it| it.entity_id.as_ref());
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
            parent.hash = parent.hash.take().or(parent_hash);
        }
        let Some(node) = self.nodes.get_mut(&entity) else {
            return;
        };
        let user = record.user.as_ref().or(process.user.as_ref());
        node.user = node.user.take().or_else(|| {
            user.map(|user| match &user.name {
                Some(name) => format!("{} ({name})", user.id),
                None => user.id.clone(),
            })
        });
        node.hash = node.hash.take().or_else(|| procid.hash.clone());
        let script = procid.script.as_ref();
        node.script = node
            .script
            .take()
            .or_else(|| script.map(|it| it.path.clone()));
        let container = record.container.as_ref();
        node.container = node
            .container
            .take()
            .or_else(|| container.map(|it| it.id.clone()));
        node.unit = node.unit.take().or_else(|| procid.unit.clone());
        node.loginuid = node.loginuid.or(procid.loginuid);
    }

    /// Takes in a process object and those inside; returns its entity id.
    fn put_process(&mut self, process: &Process) -> Option<String> {
        let entity = process.entity_id.clone()?;
        let parent = process.parent.as_deref();
        let parent = parent.and_then(|parent| self.put_process(parent));
        let node = self.nodes.entry(entity.clone()).or_default();
        node.parent = node.parent.take().or(parent);
        let known = node.process.get_or_insert_default();
        // A parent is told of with less than the image that acted.
        if known.command_line.is_none() && (known.pid.is_none() || process.command_line.is_some()) {
            *known = Process {
                parent: None,
                previous: None,
                args: None,
                ..process.clone()
            };
        }
        known.end = known.end.take().or_else(|| process.end.clone());
        Some(entity)
    }

    /// Finds children and roots; whoever made the records may have made them go
    /// round in circles.
    fn link(&mut self) {
        let order: Vec<String> = self
            .in_order()
            .into_iter()
            .map(|(entity, _)| entity.to_owned())
            .collect();
        let mut roots = Vec::new();
        for entity in &order {
            if self.is_in_a_circle(entity)
                && let Some(node) = self.nodes.get_mut(entity)
            {
                node.parent = None;
            }
            match self.nodes.get(entity).and_then(|node| node.parent.clone()) {
                Some(parent) => {
                    let parent = self.nodes.entry(parent).or_default();
                    parent.children.push(entity.clone());
                }
                None => roots.push(entity.clone()),
            }
        }
        self.roots = roots;
    }

    fn is_in_a_circle(&self, entity: &str) -> bool {
        let mut seen = HashSet::new();
        let mut next = Some(entity);
        while let Some(at) = next {
            if !seen.insert(at) {
                return at == entity;
            }
            next = self.nodes.get(at).and_then(|node| node.parent.as_deref());
        }
        false
    }
}

fn start(node: &Node) -> Option<&str> {
    node.process.as_ref()?.start.as_deref()
}

fn entity_of(process: Option<&Process>) -> Option<&str> {
    process?.entity_id.as_deref()
}

/// Ancestors that these records name and do not describe.
pub fn ancestors(records: &[Record]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut described = HashSet::new();
    for record in records {
        let process = record.process.as_deref();
        described.extend(entity_of(process));
        let ancestry = record.procid.as_ref().and_then(|it| it.ancestry.as_ref());
        named.extend(ancestry.into_iter().flatten().cloned());
    }
    named.retain(|entity| !described.contains(entity.as_str()));
    named
}
