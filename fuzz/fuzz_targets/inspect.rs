//! What is shown of any bytes: short, harmless, and of as many items as the scanner counts.
#![no_main]

use fastblets::inspect::inspect;
use fastblets::pickle::scan::Scanner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (compressed, cut, data) = input;
    let (first, second) = data.split_at(usize::from(cut).min(data.len()));
    let stream = inspect(&[first, second], Some(compressed), None, 4).expect("there is memory");
    for item in &stream.items {
        assert!(item.text.chars().count() < 2100);
        assert!(!item.text.chars().any(char::is_control));
        assert_ne!(item.text, "<can't be shown>");
    }
    if !compressed {
        assert_eq!((stream.count, stream.damage.is_none()), scan(data));
    }
});

/// How many pickles there are, and whether nothing else is.
fn scan(mut data: &[u8]) -> (u64, bool) {
    for count in 0.. {
        match Scanner::new().scan(data) {
            Ok(Some(size)) => data = &data[size..],
            _ => return (count, data.is_empty()),
        }
    }
    unreachable!("data ends")
}
