//! Label selectors (`apimachinery`, `LabelSelectorAsSelector`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether a selector takes an object with these labels. An empty one takes all.
pub(super) fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let mut equal = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    equal.all(|(name, value)| label(name) == Some(value))
        && expressions.all(|it| {
            let its = label(&it.key);
            let is_in = || its.is_some_and(|its| it.values.iter().flatten().any(|v| v == its));
            match it.operator.as_str() {
                "In" => is_in(),
                "NotIn" => !is_in(),
                "Exists" => its.is_some(),
                "DoesNotExist" => its.is_none(),
                _ => false,
            }
        })
}
