//! When a replica may serve another leaf.

use std::time::Duration;

use jiff::Timestamp;

use super::{LeafFacts, Lives, WebhookBundle};

/// What a replica saw of the configuration, before it read the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The configuration's webhooks; None where there is no configuration.
    pub webhooks: Option<Vec<WebhookBundle>>,
    /// For how long the replica has seen this very version of them: what it was in the meantime, while nobody looked,
    /// would not show.
    pub seen_for: Duration,
}

/// Whether a replica may serve `offered`, the Secret's leaf, in place of `serving`. A leaf is issued only by a CA that
/// every API server uses; but a Secret that was replaced by an older one may hold a leaf of a CA that has left
/// `caBundle`. `published` is None where that is not known: then `serving` is kept for as long as it is of use.
pub fn may_replace(
    serving: &LeafFacts,
    offered: &LeafFacts,
    published: Option<&Published>,
    now: Timestamp,
    lives: &Lives,
) -> bool {
    if serving.validity.expired(now) || (offered.issuer.is_some() && offered.issuer == serving.issuer) {
        return true;
    }
    let Some(Published { webhooks, seen_for }) = published else {
        return false;
    };
    let is_trusted = |leaf: &LeafFacts| {
        let mut webhooks = webhooks.iter().flatten();
        webhooks.all(|webhook| {
            let mut authorities = webhook.authorities.iter();
            authorities.any(|authority| leaf.issuer.as_ref() == Some(&authority.der))
        })
    };
    !is_trusted(serving) || (is_trusted(offered) && *seen_for >= lives.publish_wait)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{LIVES, TODAY, day, mk_authority, mk_bundle, mk_leaf},
        *,
    };

    fn replaces(serving: &LeafFacts, offered: &LeafFacts, published: Option<(&[u8], u64)>) -> bool {
        let published = published.map(|(authorities, seen_for)| {
            let authorities: Vec<_> = authorities
                .iter()
                .map(|number| mk_authority(*number, 10))
                .collect();
            Published {
                webhooks: Some(vec![mk_bundle(&authorities); 2]),
                seen_for: Duration::from_secs(seen_for),
            }
        });
        may_replace(serving, offered, published.as_ref(), day(TODAY), &LIVES)
    }

    #[test]
    fn a_leaf_of_another_ca_waits_until_the_api_servers_know_that_ca() {
        let (one, two) = (mk_leaf(1, 10), mk_leaf(2, 0));
        for (published, expected) in [
            (None, false),
            (Some((&[1][..], 3600)), false),
            (Some((&[1, 2], 59)), false),
            (Some((&[1, 2], 60)), true),
            // By what is served nobody can call any more.
            (Some((&[2], 0)), true),
            (Some((&[3], 0)), true),
        ] {
            assert_eq!(replaces(&one, &two, published), expected, "{published:?}");
        }
        let of_nobody_known = LeafFacts { issuer: None, ..two };
        assert!(!replaces(&one, &of_nobody_known, Some((&[1, 2], 3600))));
    }

    #[test]
    fn it_waits_in_no_webhook_less_than_in_the_others() {
        let (one, two) = (mk_leaf(1, 10), mk_leaf(2, 0));
        let published = |webhooks| Published {
            webhooks,
            seen_for: Duration::from_secs(3600),
        };
        let (both, old) = ([mk_authority(1, 10), mk_authority(2, 0)], [mk_authority(1, 10)]);
        let mixed = published(Some(vec![mk_bundle(&both), mk_bundle(&old)]));
        assert!(!may_replace(&one, &two, Some(&mixed), day(TODAY), &LIVES));
        // Where there is no configuration nobody calls.
        let none = published(None);
        assert!(may_replace(&one, &two, Some(&none), day(TODAY), &LIVES));
    }

    #[test]
    fn a_leaf_of_the_same_ca_and_one_in_place_of_an_expired_one_wait_for_nothing() {
        let (old, new) = (mk_leaf(1, 20), mk_leaf(1, 0));
        assert!(replaces(&old, &new, None));
        let expired = mk_leaf(1, 30);
        assert!(replaces(&expired, &mk_leaf(2, 0), None));
        assert!(!replaces(&mk_leaf(1, 29), &mk_leaf(2, 0), None));
    }
}
