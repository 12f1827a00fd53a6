//! Any text is a configuration or an error with its line, and what is written is read back.

#![no_main]

use gibbon::import::{Options, apache};
use gibbon::source::files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let files = [("httpd.conf".to_owned(), text.clone()), (".htaccess".to_owned(), text)];
    let options = Options { services: Some("shop".to_owned()), ..Options::default() };
    // Both forms, since names decide which it is.
    for (file, options) in files.into_iter().zip([Options::default(), options]) {
        let Ok(outcome) = apache(&[file], &|_| Ok(Vec::new()), &options) else { continue };
        let counts = outcome.report.directives();
        let all = counts.converted + counts.approximated + counts.dropped;
        assert_eq!(all, outcome.report.entries().len());
        if options.services.is_none() {
            let yaml = outcome.yaml();
            let reading = files::read(&yaml);
            assert!(reading.faults.is_empty(), "{:?}\n{yaml}", reading.faults);
            assert_eq!(reading.rules.len(), outcome.balancers.len());
        }
    }
});
