//! `GET /v1/events`: every record as it is emitted.
//!
//! | parameter | value |
//! | --- | --- |
//! | `after` | begin behind the record of this `event.sequence`; without it, with what comes |
//! | `ephemeral_id` | the `agent.ephemeral_id` of that record. Of another run than this one, all of this run's records are new |

use axum::{
    Extension,
    body::Body,
    extract::{Query as UrlQuery, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, sync::Arc};

use super::{
    server::{Refusal, bad_parameter, ndjson},
    slots::Stay,
};
use crate::agent::{
    handle::Handle,
    stream::{Start, Stream},
};

/// The parameters of `/v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_id: Option<String>,
}

pub(super) async fn events(
    State(handle): State<Handle>,
    stay: Option<Extension<Arc<Stay>>>,
    parameters: Result<UrlQuery<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let UrlQuery(parameters) = parameters.map_err(|error| bad_parameter(&error))?;
    let start = start(&parameters, handle.stream())
        .map_err(|sentence| Refusal(StatusCode::BAD_REQUEST, sentence))?;
    let reader = handle.stream().read(start).ok_or_else(|| {
        Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "as many read the events already as can; end one of them".to_owned(),
        )
    })?;
    if let Some(Extension(stay)) = stay {
        stay.is_long_from_here();
    }
    let lines = stream::unfold(reader, async |mut reader| {
        let lines = reader.next().await?;
        Some((Ok::<_, Infallible>(lines), reader))
    });
    Ok(ndjson(Body::from_stream(lines)))
}

/// Where to begin, or what is wrong with the question.
fn start(parameters: &Parameters, stream: &Stream) -> Result<Start, String> {
    let Some(after) = parameters.after else {
        return match parameters.ephemeral_id {
            None => Ok(Start::Now),
            Some(_) => Err(
                "ephemeral_id says of which run `after` is a sequence; give `after` too".to_owned(),
            ),
        };
    };
    let asked = parameters.ephemeral_id.as_deref();
    if asked.is_some() && asked != stream.ephemeral_id() {
        return Ok(Start::After(0));
    }
    let emitted = stream.emitted();
    if after > emitted {
        return Err(format!(
            "after={after} lies behind the last record, which is {emitted}; of another run of \
             the agent, give its ephemeral_id too"
        ));
    }
    Ok(Start::After(after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{origin::Origin, stream::stream},
        records::{self, Record},
    };

    #[test]
    fn a_sequence_is_one_of_a_run() {
        let mut origin = Origin::default();
        origin.agent.ephemeral_id = Some("this".to_owned());
        let (mut tap, stream) = stream(origin);
        let mut record = Record {
            event: Some(records::Event::default()),
            ..Record::default()
        };
        record.event.as_mut().unwrap().sequence = Some(7);
        tap.put(&record, None).unwrap();
        let at = |after, ephemeral_id: Option<&str>| {
            let ephemeral_id = ephemeral_id.map(str::to_owned);
            start(
                &Parameters {
                    after,
                    ephemeral_id,
                },
                &stream,
            )
        };
        assert_eq!(at(None, None), Ok(Start::Now));
        assert_eq!(at(Some(7), None), Ok(Start::After(7)));
        assert_eq!(at(Some(7), Some("this")), Ok(Start::After(7)));
        assert_eq!(at(Some(7), Some("other")), Ok(Start::After(0)));
        assert_eq!(at(Some(9), Some("other")), Ok(Start::After(0)));
        for (after, ephemeral_id, word) in [
            (None, Some("this"), "give `after` too"),
            (Some(8), None, "the last record, which is 7"),
            (Some(8), Some("this"), "the last record, which is 7"),
        ] {
            let error = at(after, ephemeral_id).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
