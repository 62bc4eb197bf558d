//! `GET /metrics`: the agent's state as Prometheus reads it
//! ([exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/)).
//!
//! Made anew for each question from what `/v1/status` says, so that the two
//! cannot disagree.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};

use super::server::Refusal;
use crate::{
    agent::{
        handle::{GateStatus, Handle, Status},
        stream::Readers,
    },
    history,
};

pub(super) fn router() -> Router<Handle> {
    Router::new().route("/metrics", get(metrics))
}

pub(super) async fn metrics(State(handle): State<Handle>) -> Result<Response, Refusal> {
    let status = handle.status().await?;
    let text = text(status, handle.stream().readers());
    Ok((
        [(header::CONTENT_TYPE, prometheus_text::CONTENT_TYPE)],
        text,
    )
        .into_response())
}

fn text(status: Status, readers: Readers) -> String {
    let mut registry = Registry::with_prefix("procid");
    registry.register(
        "build",
        "The agent that answers",
        Info::new([("version", status.version.clone())]),
    );
    registry.register_collector(Box::new(Look { status, readers }));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// The agent as it is at one look.
#[derive(Debug)]
struct Look {
    status: Status,
    readers: Readers,
}

impl Collector for Look {
    fn encode(&self, encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut sheet = Sheet(encoder);
        self.agent(&mut sheet)?;
        self.records(&mut sheet)?;
        self.policy(&mut sheet)?;
        if let Some(kept) = &self.status.history {
            history(kept, &mut sheet)?;
        }
        match &self.status.exec_gate {
            Some(gate) => exec_gate(gate, &mut sheet),
            None => Ok(()),
        }
    }
}

impl Look {
    fn agent(&self, sheet: &mut Sheet<'_>) -> std::fmt::Result {
        let status = &self.status;
        let since = status.since.parse::<Timestamp>();
        sheet.gauge(
            "start_time_seconds",
            "When the hooks were attached, since the epoch",
            since.map_or(0, Timestamp::as_second),
        )?;
        sheet.gauge(
            "healthy",
            "Whether every hook wanted is attached and nothing was lost",
            i64::from(status.healthy),
        )?;
        let attached = status.hooks.iter().filter(|hook| hook.attached).count();
        sheet.gauge(
            "hooks_attached",
            "Hooks that are attached",
            signed(attached),
        )?;
        sheet.gauge(
            "uncovered_paths",
            "Ways out that this host does not let procid see",
            signed(status.uncovered.len()),
        )?;
        let used = |name: &str| status.fill.get(name).map_or(0, |fill| signed(fill.used));
        sheet.gauge("connections", "Open connections", used("connections"))?;
        sheet.gauge("images", "Images that run", used("images-live"))?;
        let fill = |of: fn(&crate::agent::handle::Fill) -> u64| {
            let tables = status.fill.iter();
            tables
                .map(|(name, fill)| (name.clone(), signed(of(fill))))
                .collect::<BTreeMap<_, _>>()
        };
        sheet.gauges(
            "map_entries",
            "Entries in use",
            "map",
            &fill(|fill| fill.used),
        )?;
        sheet.gauges(
            "map_capacity_entries",
            "Entries there is room for",
            "map",
            &fill(|fill| fill.capacity),
        )?;
        let answers = status.answers;
        let whole = answers.read.saturating_sub(answers.unreadable);
        sheet.counters(
            "dns_answers",
            "DNS answers that reached this host",
            "outcome",
            &BTreeMap::from([
                ("read".to_owned(), whole),
                ("unreadable".to_owned(), answers.unreadable),
            ]),
        )?;
        sheet.gauge(
            "hash_queue_files",
            "Files that wait to be hashed",
            signed(status.hash_queue),
        )
    }

    fn records(&self, sheet: &mut Sheet<'_>) -> std::fmt::Result {
        let status = &self.status;
        sheet.counters("records", "Records emitted", "action", &status.actions)?;
        sheet.counters(
            "lost_records",
            "Records that are missing, by cause",
            "cause",
            &status.lost,
        )?;
        sheet.gauge(
            "event_readers",
            "Readers of /v1/events now",
            signed(self.readers.now),
        )?;
        sheet.counter(
            "event_records_missed",
            "Records that slow readers of /v1/events were told they missed",
            self.readers.missed,
        )
    }

    fn policy(&self, sheet: &mut Sheet<'_>) -> std::fmt::Result {
        let generation = self.status.policy_generation;
        sheet.gauge(
            "policy_generation",
            "Generation of the policy in force; 0: none",
            signed(generation),
        )?;
        let Some(policy) = &self.status.policy else {
            return Ok(());
        };
        sheet.gauge(
            "policy_rules",
            "Rules of the policy in force, temporary ones included",
            signed(policy.rules),
        )?;
        sheet.gauge(
            "policy_blocks",
            "Temporary rules in force",
            signed(policy.blocks),
        )
    }
}

fn history(kept: &history::State, sheet: &mut Sheet<'_>) -> std::fmt::Result {
    sheet.gauge(
        "history_writable",
        "Whether the history is written",
        i64::from(kept.trouble.is_none()),
    )?;
    sheet.gauge(
        "history_size_bytes",
        "Size of the history's file",
        signed(kept.size),
    )?;
    sheet.counter(
        "history_facts_written",
        "Facts written to the history",
        kept.written,
    )?;
    sheet.counter(
        "history_facts_missed",
        "Facts that are missing in the history",
        kept.missed,
    )?;
    sheet.counter(
        "history_connections_removed",
        "Connections removed from the history, for want of room or for their age",
        kept.removed,
    )
}

fn exec_gate(gate: &GateStatus, sheet: &mut Sheet<'_>) -> std::fmt::Result {
    sheet.gauge(
        "exec_gate_stands",
        "Whether programs are held up until they are hashed",
        i64::from(gate.stands),
    )?;
    sheet.gauge(
        "exec_gate_unmarked_file_systems",
        "File systems with programs that the exec gate does not stand before",
        signed(gate.unmarked),
    )?;
    let outcomes = [
        ("hashed", gate.hashed),
        ("known", gate.cached),
        ("skipped", gate.skipped),
        ("unproven", gate.unproven),
        ("timed-out", gate.timed_out),
        ("passed", gate.passed),
        ("unopened", gate.unopened),
    ];
    sheet.counters(
        "exec_gate_answers",
        "What became of executions that asked the exec gate",
        "outcome",
        &outcomes
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
    )?;
    sheet.counter(
        "exec_gate_executions",
        "Executions that asked the exec gate",
        gate.executions,
    )?;
    sheet.counter(
        "exec_gate_overflows",
        "Times that the kernel's queue was full, and the exec gate was not asked",
        gate.overflows,
    )
}

/// What metrics are written on.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: i64) -> std::fmt::Result {
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> std::fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &BTreeMap<String, i64>,
    ) -> std::fmt::Result {
        let values = values.iter().map(|(key, &n)| (key, ConstGauge::new(n)));
        self.family(name, help, label, values)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &BTreeMap<String, u64>,
    ) -> std::fmt::Result {
        let values = values.iter().map(|(key, &n)| (key, ConstCounter::new(n)));
        self.family(name, help, label, values)
    }

    fn family<'k, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        metrics: impl Iterator<Item = (&'k String, M)>,
    ) -> std::fmt::Result {
        let mut metrics = metrics.peekable();
        let Some((_, first)) = metrics.peek() else {
            return Ok(());
        };
        let kind = first.metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (key, metric) in metrics {
            let labels = [(label, key.as_str())];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A count as gauges hold it.
fn signed(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        handle::{Fill, HookStatus},
        policy::ask::PolicyStatus,
    };

    #[test]
    fn each_number_is_under_its_name() {
        let fill = |used, capacity| Fill { used, capacity };
        let status = Status {
            version: "0.1.0\"\\\n".to_owned(),
            since: "2026-11-22T15:04:05.123456789Z".to_owned(),
            healthy: true,
            hooks: vec![
                HookStatus {
                    attached: true,
                    ..HookStatus::default()
                },
                HookStatus::default(),
            ],
            actions: BTreeMap::from([("connect".to_owned(), 7), ("close".to_owned(), 5)]),
            lost: BTreeMap::from([("ring-full".to_owned(), 3)]),
            fill: BTreeMap::from([
                ("connections".to_owned(), fill(2, 100)),
                ("images-live".to_owned(), fill(40, 200)),
            ]),
            hash_queue: 1,
            policy_generation: 4,
            policy: Some(PolicyStatus {
                rules: 9,
                blocks: 1,
                ..PolicyStatus::default()
            }),
            history: Some(history::State {
                size: 4_096,
                written: 11,
                missed: 2,
                removed: 13,
                ..history::State::default()
            }),
            exec_gate: Some(GateStatus {
                stands: true,
                executions: 12,
                hashed: 8,
                ..GateStatus::default()
            }),
            ..Status::default()
        };
        let text = text(status, Readers { now: 2, missed: 6 });
        for line in [
            r#"procid_build_info{version="0.1.0\"\\\n"} 1"#,
            "procid_start_time_seconds 1795359845",
            "procid_healthy 1",
            "procid_hooks_attached 1",
            "procid_connections 2",
            "procid_images 40",
            r#"procid_map_entries{map="connections"} 2"#,
            r#"procid_map_capacity_entries{map="images-live"} 200"#,
            "procid_hash_queue_files 1",
            "# TYPE procid_records_total counter",
            r#"procid_records_total{action="connect"} 7"#,
            r#"procid_records_total{action="close"} 5"#,
            r#"procid_lost_records_total{cause="ring-full"} 3"#,
            "procid_event_readers 2",
            "procid_event_records_missed_total 6",
            "procid_policy_generation 4",
            "procid_policy_rules 9",
            "procid_policy_blocks 1",
            "procid_history_writable 1",
            "procid_history_size_bytes 4096",
            "procid_history_facts_written_total 11",
            "procid_history_facts_missed_total 2",
            "procid_history_connections_removed_total 13",
            "procid_exec_gate_stands 1",
            r#"procid_exec_gate_answers_total{outcome="hashed"} 8"#,
            "procid_exec_gate_executions_total 12",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
        // Each name is described once, before its values.
        let mut names: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{text}");
    }

    #[test]
    fn what_there_is_none_of_is_not_there() {
        let text = text(Status::default(), Readers::default());
        assert!(!text.contains("exec_gate"), "{text}");
        assert!(!text.contains("policy_rules"), "{text}");
        assert!(text.contains("procid_policy_generation 0\n"), "{text}");
    }
}
