//! Flows, times and filters, as words and as parameters of the API.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::{api::parameters::Parameters, flow::Query, time};

fuzz_target!(|text: &str| {
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let _flow = Query::from_words(&words);
    for word in &words {
        let _moment = time::moment(word);
        let _span = time::span(word);
        if let Ok(parameters) = serde_urlencoded::from_str::<Parameters>(word) {
            let _query = Query::try_from(parameters);
        }
    }
});
