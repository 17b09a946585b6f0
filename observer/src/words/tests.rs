//! The language files are complete, and say the same.

use std::collections::BTreeSet;

use fluent_bundle::FluentResource;
use rstest::rstest;
use strum::VariantNames as _;

use super::*;
use crate::cluster::finding::{Finding, Reason};
use crate::cluster::front::{Carrier, Delivers, System};
use crate::cluster::plane::Dataplane;
use crate::cluster::proxy::Controller;
use crate::manifests::Assumption;
use crate::verdict::Why;
use crate::verdict::advice::ChangeCode;
use crate::verdict::chain::{Loser, Seen, StageKind};

/// Lines of a file that begin a sentence or its attribute, with what is set into each.
fn sentences(source: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in source.lines().filter(|line| !line.starts_with('#')) {
        let begins = !line.starts_with([' ', '}', '*', '[']);
        if let Some((name, _)) = line.split_once(" =")
            && (begins || name.trim_start().starts_with('.'))
        {
            found.push((name.trim().to_owned(), BTreeSet::new()));
        }
        let set = line.split("{ $").skip(1);
        let set = set.filter_map(|rest| rest.split([' ', '}']).next().map(str::to_owned));
        if let Some((_, last)) = found.last_mut() {
            last.extend(set);
        }
    }
    found
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

#[rstest]
#[case::english(ENGLISH)]
#[case::korean(KOREAN)]
fn the_files_have_no_mistakes(#[case] source: &str) {
    let mistakes = FluentResource::try_new(source.to_owned()).err();
    assert!(
        mistakes.is_none(),
        "{:?}",
        mistakes.map(|(_, errors)| errors)
    );
}

#[test]
fn both_languages_say_the_same() {
    assert_eq!(sentences(ENGLISH), sentences(KOREAN));
}

#[rstest]
fn every_word_is_said(#[values(Language::En, Language::Ko)] language: Language) {
    let words = Words::of(language);
    let all: [(&str, &[&str]); 13] = [
        ("why", Why::VARIANTS),
        ("lost-by", Loser::VARIANTS),
        ("system", System::VARIANTS),
        ("controller", Controller::VARIANTS),
        ("reason", Reason::VARIANTS),
        ("delivers", Delivers::VARIANTS),
        ("dataplane", Dataplane::VARIANTS),
        ("carrier", Carrier::VARIANTS),
        ("seen", Seen::VARIANTS),
        ("stage", StageKind::VARIANTS),
        ("finding", Finding::VARIANTS),
        ("change", ChangeCode::VARIANTS),
        ("assumption", Assumption::VARIANTS),
    ];
    for (prefix, names) in all {
        for name in names {
            assert!(words.has(&format!("{prefix}-{name}")), "{prefix}-{name}");
        }
    }
    for code in ChangeCode::VARIANTS {
        let name = format!("change-{code}");
        assert_ne!(words.price(&name), name);
    }
}

#[rstest]
#[case::nothing(&[], Language::En)]
#[case::korean(&[("LANG", "ko_KR.UTF-8")], Language::Ko)]
#[case::all_first(&[("LC_ALL", "C"), ("LANG", "ko_KR.UTF-8")], Language::En)]
#[case::empty_is_unset(&[("LC_ALL", ""), ("LC_MESSAGES", "ko")], Language::Ko)]
#[case::another(&[("LANG", "de_DE.UTF-8")], Language::En)]
#[case::not_to_be_cut(&[("LANG", "é")], Language::En)]
fn the_environment_chooses(#[case] set: &[(&str, &str)], #[case] expected: Language) {
    let of = |name: &str| {
        let mut set = set.iter().filter(|(its, _)| *its == name);
        set.next().map(|(_, value)| (*value).to_owned())
    };
    assert_eq!(Language::of(of), expected);
}

#[test]
fn what_is_set_in_is_in_the_language() {
    let finding = Finding::SourceRangesSeeTheLoadBalancer {
        service: "shop/web".to_owned(),
        system: "aws-nlb".to_owned(),
    };
    let english = Words::of(Language::En).tell("finding", &finding);
    assert_eq!(
        english,
        "shop/web: loadBalancerSourceRanges are compared with the address of the AWS Network Load \
         Balancer, not with the client's"
    );
}

#[test]
fn who_and_why_are_words_too() {
    let words = Words::of(Language::En);
    let finding = Finding::ProxyProtocolNotSent {
        by: "aws-nlb".to_owned(),
        reader: "haproxy".to_owned(),
    };
    assert_eq!(
        words.tell("finding", &finding),
        "HAProxy waits for a PROXY header, and AWS Network Load Balancer sends none: every \
         request fails"
    );
    let finding = Finding::PolicyDoesNotApply {
        field: "externalTrafficPolicy".to_owned(),
        service: "shop/web".to_owned(),
        why: Reason::PastKubeProxy,
    };
    assert_eq!(
        words.tell("finding", &finding),
        "shop/web: externalTrafficPolicy changes nothing here: the load balancer delivers to \
         pods, past kube-proxy"
    );
}
