//! What is told of what was found, and when: once, and not of what lasts for a moment only.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Problem, ProblemKind};

/// Shortest and longest time between two repairs: somebody who undoes each is not to be fought at full speed.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// After so long without a repair, the next one comes at the first speed again.
const QUIET: Duration = Duration::from_secs(600);

/// A problem without its words.
type Key = (ProblemKind, String);

/// Remembers what was found and told.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    /// Found at the last look, told or not.
    found: BTreeMap<Key, Problem>,
    told: BTreeMap<Key, Problem>,
}

/// What is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) begun: Vec<Problem>,
    pub(super) ended: Vec<Problem>,
}

impl Vigil {
    /// Takes in what one look found. A problem begins when two looks in a row find it: an apply in two steps, or a
    /// caBundle that is about to be filled in, is none. It ends with the first look that does not.
    pub(super) fn look(&mut self, problems: Vec<Problem>) -> News {
        let now: BTreeMap<Key, Problem> = problems
            .into_iter()
            .map(|problem| ((problem.kind, problem.webhook.clone()), problem))
            .collect();
        let mut news = News::default();
        self.told.retain(|key, problem| {
            let stays = now.contains_key(key);
            if !stays {
                news.ended.push(problem.clone());
            }
            stays
        });
        for (key, problem) in &now {
            if let Some(told) = self.told.get_mut(key) {
                told.clone_from(problem);
            } else if self.found.contains_key(key) {
                self.told.insert(key.clone(), problem.clone());
                news.begun.push(problem.clone());
            }
        }
        self.found = now;
        news
    }

    /// What is wrong, as told.
    pub(super) fn told(&self) -> impl Iterator<Item = &Problem> {
        self.told.values()
    }
}

/// How often repairs may be.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Whether a repair may be tried now; if so, it counts as tried.
    pub(super) fn may(&mut self, now: Instant) -> bool {
        let pause = match self.last {
            None => FIRST_PAUSE,
            Some((last, pause)) => {
                let since = now.saturating_duration_since(last);
                if since < pause {
                    return false;
                }
                if since >= QUIET {
                    FIRST_PAUSE
                } else {
                    pause.saturating_mul(2).min(LONGEST_PAUSE)
                }
            }
        };
        self.last = Some((now, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_problem(kind: ProblemKind, detail: &str) -> Problem {
        Problem {
            kind,
            webhook: "a".to_owned(),
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn a_problem_is_told_once_it_lasted_and_once_it_is_over() {
        let mut vigil = Vigil::default();
        let problem = |detail| mk_problem(ProblemKind::CaBundle, detail);
        assert_eq!(
            vigil.look(vec![problem("empty")]),
            News::default(),
            "perhaps a moment"
        );
        assert_eq!(vigil.look(vec![problem("empty")]).begun, [problem("empty")]);
        // Other words of the same are no news, and what was said last is what is told on asking.
        assert_eq!(vigil.look(vec![problem("other")]), News::default());
        assert_eq!(vigil.told().collect::<Vec<_>>(), [&problem("other")]);
        assert_eq!(vigil.look(Vec::new()).ended, [problem("other")]);
        assert_eq!(vigil.told().count(), 0);
        assert_eq!(vigil.look(Vec::new()), News::default());
    }

    #[test]
    fn what_lasts_for_one_look_is_never_told() {
        let mut vigil = Vigil::default();
        for _ in 0..3 {
            assert_eq!(
                vigil.look(vec![mk_problem(ProblemKind::Rules, "")]),
                News::default()
            );
            assert_eq!(vigil.look(Vec::new()), News::default());
        }
    }

    #[test]
    fn repairs_slow_down_while_somebody_undoes_them_and_recover() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        let tried: Vec<u64> = (0..1000).filter(|second| pace.may(at(*second))).collect();
        assert_eq!(tried, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
        assert!(pace.may(at(915 + 600)) && pace.may(at(915 + 605)));
    }
}
