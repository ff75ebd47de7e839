//! Replies of large receivers, sorted by their reason. The lab compares Postfix's table with the same list.

use gatepost::outbound::is_policy_refusal;

#[test]
fn refusals_of_large_receivers_are_recognised() {
    let list = include_str!("../refusals.txt");
    let replies = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut policy, mut other) = (0, 0);
    for line in replies {
        let (reason, reply) = line.split_once(' ').unwrap();
        let expected = match reason {
            "policy" => true,
            "other" => false,
            _ => panic!("{line}"),
        };
        assert_eq!(is_policy_refusal(reply), expected, "{reply}");
        *if expected { &mut policy } else { &mut other } += 1;
    }
    assert!(policy > 15 && other > 10, "{policy} and {other} replies");
}
