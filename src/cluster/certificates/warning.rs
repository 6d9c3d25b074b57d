//! What is wrong for as long as somebody leaves it so, and is said once.

/// One thing that may be wrong.
#[derive(Debug, Default)]
pub(super) struct Warning(Option<String>);

impl Warning {
    /// It is so `now` (None: as it should be). Gives what to say, if that is news.
    #[must_use]
    pub(super) fn news(&mut self, now: Option<String>) -> Option<&str> {
        let is_news = self.0 != now;
        self.0 = now;
        self.0.as_deref().filter(|_| is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once_until_it_is_gone() {
        let mut warning = Warning::default();
        let bad = |what: &str| Some(what.to_owned());
        assert_eq!(warning.news(None), None);
        assert_eq!(warning.news(bad("a")), Some("a"));
        assert_eq!(warning.news(bad("a")), None);
        assert_eq!(warning.news(bad("b")), Some("b"));
        assert_eq!(warning.news(None), None);
        assert_eq!(warning.news(bad("b")), Some("b"));
    }
}
