//! The scanner on any bytes, however they arrive, against the naive one.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use fastblets::pickle::scan::Scanner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, data) = input;
    let step = usize::from(step) + 1;
    let whole = Scanner::new().scan(data);
    if let Ok(Some(end)) = whole {
        assert_eq!(model::model(data), Some(end));
    }

    if let Ok(strict) = Scanner::as_written().scan(data) {
        assert_eq!(Ok(strict), whole);
    }

    let mut scanner = Scanner::new();
    for end in (0..data.len()).step_by(step).chain([data.len()]) {
        match scanner.scan(&data[..end]) {
            Ok(None) => {}
            found => return assert_eq!(found, whole),
        }
    }
    assert_eq!(whole, Ok(None));
});
