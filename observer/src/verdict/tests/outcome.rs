//! What became of the opening packet, and why.

use super::*;

#[rstest]
#[case::no_endpoint_of_this_node("172.31.0.11:30081", OutcomeCauseCode::NoLocalEndpoints)]
#[case::no_endpoint_at_all("172.31.0.11:30082", OutcomeCauseCode::NoEndpoints)]
#[case::not_among_the_source_ranges("198.51.100.7:80", OutcomeCauseCode::SourceRanges)]
#[case::nothing_of_kube_proxys(WEB, OutcomeCauseCode::NetworkPolicyOrFirewall)]
fn what_left_no_entry_was_dropped_and_the_objects_say_why(
    #[case] door: &str,
    #[case] expected: OutcomeCauseCode,
) {
    let verdict = judged(&silent(CLIENT, door).with_entry(Entry::Absent { table_full: false }));
    assert_eq!(verdict.outcome, Outcome::Dropped);
    assert_eq!(outcome_code(&verdict), Some(expected));
    assert_eq!(verdict.backend, None);
    assert_eq!(verdict.source_seen, None);
    assert_eq!(verdict.source_ip, SourceIp::Unknown);
    assert_eq!(verdict.cause, None);
    assert_eq!(verdict.extra_hops, None);
}

#[test]
fn a_pod_that_policy_local_should_spare_is_a_finding_with_what_may_be_the_reason() {
    let dropped = silent("10.244.1.9:40000", "172.31.0.11:30081")
        .with_entry(Entry::Absent { table_full: false });
    let verdict = judged(&dropped);
    let why = verdict.outcome_cause.expect("a cause");
    assert_eq!(why.code, OutcomeCauseCode::NoLocalEndpoints);
    assert!(
        why.explanation.contains("cluster CIDR"),
        "{}",
        why.explanation
    );
    let expected = verdict.expected.expect("a promise");
    assert_eq!(expected.outcome, Outcome::Answered);
}

#[test]
fn source_ranges_do_not_fence_a_node_port() {
    let dropped =
        silent(CLIENT, "172.31.0.11:30083").with_entry(Entry::Absent { table_full: false });
    assert_eq!(
        outcome_code(&judged(&dropped)),
        Some(OutcomeCauseCode::NetworkPolicyOrFirewall)
    );
}

#[test]
fn an_entry_without_a_reply_was_delivered_and_left_waiting() {
    let entry = Entry::Present {
        reply: Tuple {
            source: socket("172.31.0.11:8080"),
            destination: socket(CLIENT),
        },
        replied: false,
    };
    let verdict = judged(&silent(CLIENT, "172.31.0.11:30084").with_entry(entry));
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(outcome_code(&verdict), Some(OutcomeCauseCode::ListenQueue));
    assert_eq!(verdict.source_ip, SourceIp::Preserved);
    assert_eq!(verdict.extra_hops, Some(0));

    let mut datagram = silent(CLIENT, "172.31.0.11:30084").with_entry(entry);
    datagram.identity.protocol = Protocol::Udp;
    let verdict = judged_with(&datagram, None).expect("rewritten");
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(outcome_code(&verdict), None, "it need not answer");
}

#[test]
fn without_conntracks_word_the_outcome_is_unknown() {
    let verdict = judged(&silent(CLIENT, WEB));
    assert_eq!(verdict.outcome, Outcome::Unknown);
    assert_eq!(verdict.outcome_cause, None);
}

#[test]
fn a_refusal_is_the_backends_if_it_came_from_there_and_kube_proxys_without_endpoints() {
    let refused = |refusal, arrival| {
        Answer::Refused(
            refusal,
            Answered {
                at: Moment(300),
                arrival,
            },
        )
    };
    let by_backend = Connection {
        answer: refused(Refusal::Reset, Some(arrival())),
        ..answered(CLIENT, WEB, LOCAL_POD, NODE1_MASQUERADE)
    };
    let verdict = judged(&by_backend);
    assert_eq!(verdict.outcome, Outcome::Refused);
    assert_eq!(
        outcome_code(&verdict),
        Some(OutcomeCauseCode::BackendRefused)
    );

    for (door, refusal, expected) in [
        (
            "172.31.0.11:30082",
            Refusal::IcmpError,
            OutcomeCauseCode::NoEndpoints,
        ),
        (
            "10.244.1.1:30080",
            Refusal::Reset,
            OutcomeCauseCode::NotANodePortAddress,
        ),
        (WEB, Refusal::IcmpError, OutcomeCauseCode::Unknown),
    ] {
        let by_this_node = Connection {
            departure: None,
            answer: refused(refusal, None),
            ..answered(CLIENT, door, door, CLIENT)
        };
        let verdict = judged(&by_this_node);
        assert_eq!(outcome_code(&verdict), Some(expected), "{door}");
        assert_eq!(verdict.backend, None);
    }
}

#[test]
fn a_reply_that_went_astray_explains_the_silence() {
    let unanswered = Connection {
        answer: Answer::None,
        ..answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE)
    };
    let verdict = judged(&unanswered);
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(verdict.outcome_cause, None);

    let doubtful = Connection {
        doubtful: true,
        ..unanswered.clone()
    };
    assert_eq!(judged(&doubtful).outcome, Outcome::Unknown);

    let lost_on_its_way = unanswered
        .clone()
        .with_entry(Entry::Absent { table_full: false });
    assert_eq!(judged(&lost_on_its_way).outcome, Outcome::Dropped);

    let astray = Connection {
        stray: Some(arrival()),
        ..unanswered
    };
    let verdict = judged(&astray);
    assert_eq!(verdict.outcome, Outcome::Unanswered);
    assert_eq!(
        outcome_code(&verdict),
        Some(OutcomeCauseCode::AsymmetricReturn)
    );
}

#[test]
fn the_kernels_reason_is_told_beside_ours_and_changes_nothing() {
    let dropped = silent(CLIENT, WEB).with_entry(Entry::Absent { table_full: false });
    let without = judged(&dropped);
    let with = judged(&Connection {
        drop_reason: Some(DropReason("NETFILTER_DROP".to_owned())),
        ..dropped
    });
    assert_eq!(with.outcome, without.outcome);
    let (with, without) = (with.outcome_cause.unwrap(), without.outcome_cause.unwrap());
    assert_eq!(with.code, without.code);
    assert_eq!(
        with.explanation,
        without.explanation + " (the kernel's drop reason: NETFILTER_DROP)"
    );
}

#[test]
fn a_full_table_drops_what_nothing_else_would() {
    let dropped = silent(CLIENT, WEB).with_entry(Entry::Absent { table_full: true });
    assert_eq!(
        outcome_code(&judged(&dropped)),
        Some(OutcomeCauseCode::ConntrackFull)
    );
}

#[test]
fn one_that_existed_before_has_the_outcome_that_conntrack_knows() {
    let Connection {
        identity,
        translation,
        ..
    } = answered(CLIENT, WEB, REMOTE_POD, NODE1_MASQUERADE);
    let reply = translation.expect("one").reply;
    for (replied, outcome) in [(true, Outcome::Answered), (false, Outcome::Unanswered)] {
        let verdict = judged(&Connection::existing(identity, reply, replied));
        assert_eq!(verdict.outcome, outcome);
        assert_eq!(verdict.source_ip, SourceIp::Lost);
        assert_eq!(lost_at(&verdict).map(|at| at.interface), Some(None));
    }
}
