//! The exposition in Prometheus's own text format, for whoever does not ask for OpenMetrics.
//!
//! The two differ in little, but a reader of one stumbles over the other: in OpenMetrics the metadata of a counter
//! names the family (`x`) and not the sample (`x_total`), there is a type `info`, and there are lines `# UNIT` and
//! `# EOF`. Sources: the OpenMetrics 1.0 specification; "Exposition formats" of the Prometheus documentation.

/// Media type of [`super::Metrics::encode`], as prometheus-client's documentation of `encoding::text` names it.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Media type of [`prometheus_text`].
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an OpenMetrics exposition says, in Prometheus's text format.
pub fn prometheus_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type comes with the next line, and the name depends on it.
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                push_line(&mut text, &["# HELP ", family, suffix, " ", help]);
            }
            push_line(&mut text, &["# TYPE ", family, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push_line(&mut text, &[line]);
        }
    }
    text
}

fn push_line(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

/// Whether the value of an `Accept` header asks for OpenMetrics, as Prometheus does. Nothing else is asked to weigh
/// one format against the other: whoever names OpenMetrics can read it, and it says more.
pub fn accepts_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        let refused = parts.any(|parameter| {
            parameter
                .strip_prefix("q=")
                .is_some_and(|weight| weight.parse() == Ok(0.0))
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_names_the_samples_and_what_only_openmetrics_has_is_gone() {
        let openmetrics = "\
# HELP leasehold_a Counts a thing: it says so
# TYPE leasehold_a counter
leasehold_a_total{b=\"# HELP no\"} 1
# HELP leasehold_seconds Measures
# TYPE leasehold_seconds histogram
# UNIT leasehold_seconds seconds
leasehold_seconds_sum 0.5
leasehold_seconds_bucket{le=\"+Inf\"} 1
# HELP leasehold_build The version
# TYPE leasehold_build info
leasehold_build_info{version=\"1\"} 1
# EOF
";
        let expected = "\
# HELP leasehold_a_total Counts a thing: it says so
# TYPE leasehold_a_total counter
leasehold_a_total{b=\"# HELP no\"} 1
# HELP leasehold_seconds Measures
# TYPE leasehold_seconds histogram
leasehold_seconds_sum 0.5
leasehold_seconds_bucket{le=\"+Inf\"} 1
# HELP leasehold_build_info The version
# TYPE leasehold_build_info gauge
leasehold_build_info{version=\"1\"} 1
";
        assert_eq!(prometheus_text(openmetrics), expected);
    }

    #[test]
    fn openmetrics_is_for_whoever_names_it() {
        // What Prometheus 3 sends, in part.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain, Application/OpenMetrics-Text; q=0.1", true),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text; version=1.0.0; q=0.0", false),
            ("*/*", false),
            ("text/plain;version=0.0.4", false),
            ("", false),
        ] {
            assert_eq!(accepts_openmetrics(accept), expected, "{accept:?}");
        }
    }
}
