//! What roles allow, as the API server decides it.

use k8s_openapi::{api::rbac::v1::PolicyRule, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::manifests::Manifests;

/// How many rules of the roles of this name allow a request (`STATUS PATH?QUERY`), each in the
/// namespaces that it is for.
///
/// # Panics
/// If it is no request for objects.
pub fn allowing(manifests: &Manifests, role: &str, request: &str) -> usize {
    let (_, request) = request.split_once(' ').expect("a status");
    let (path, query) = request.split_once('?').unwrap_or((request, ""));
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, namespace, resource) = match parts[..] {
        ["api", "v1", resource] => ("", None, resource),
        ["api", "v1", "namespaces", namespace, resource] => ("", Some(namespace), resource),
        ["apis", group, "v1", resource] => (group, None, resource),
        _ => panic!("{request}"),
    };
    let is_watch = query
        .split('&')
        .any(|part| part == "watch=true" || part == "watch=1");
    let verb = if is_watch { "watch" } else { "list" };
    let has =
        |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|one| one == wanted);
    // A list by a name is one by that field.
    let of_name = |rule: &PolicyRule| {
        let names = rule.resource_names.iter().flatten();
        let fields: Vec<_> = names
            .map(|name| format!("metadata.name%3D{name}"))
            .collect();
        let asked = query
            .split('&')
            .find_map(|part| part.strip_prefix("fieldSelector="));
        rule.resource_names.is_none() || fields.iter().any(|field| Some(&**field) == asked)
    };
    let allows = |rule: &&PolicyRule| {
        has(&rule.api_groups, group)
            && has(&rule.resources, resource)
            && rule.verbs.iter().any(|one| one == verb)
            && of_name(rule)
    };
    let of_cluster = manifests.cluster_roles.iter();
    let of_cluster = of_cluster.map(|role| (&role.metadata, &role.rules));
    let of_namespaces = manifests.roles.iter();
    let of_namespaces = of_namespaces.map(|role| (&role.metadata, &role.rules));
    let here = |metadata: &ObjectMeta| {
        let is_everywhere = metadata.namespace.is_none();
        metadata.name.as_deref() == Some(role)
            && (is_everywhere || metadata.namespace.as_deref() == namespace)
    };
    of_cluster
        .chain(of_namespaces)
        .filter(|(metadata, _)| here(metadata))
        .flat_map(|(_, rules)| rules.iter().flatten())
        .filter(allows)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_kind_name_or_namespace_is_not_allowed() {
        let manifests = Manifests::parse(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\n\
             rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n\
             metadata: {name: a, namespace: kube-system}\n\
             rules: [{apiGroups: [''], resources: [configmaps], resourceNames: [b], verbs: [list]}]\n",
        )
        .expect("roles");
        let maps = |namespace, selector| {
            format!("200 /api/v1/namespaces/{namespace}/configmaps?limit=5{selector}")
        };
        let of_name = "&fieldSelector=metadata.name%3Db";
        for (request, rules) in [
            ("200 /api/v1/pods".to_owned(), 1),
            ("200 /api/v1/pods?watch=true".to_owned(), 0),
            ("200 /api/v1/secrets".to_owned(), 0),
            ("200 /apis/discovery.k8s.io/v1/pods".to_owned(), 0),
            (maps("kube-system", of_name), 1),
            (maps("default", of_name), 0),
            (maps("kube-system", ""), 0),
            (maps("kube-system", "&fieldSelector=metadata.name%3Dc"), 0),
        ] {
            assert_eq!(allowing(&manifests, "a", &request), rules, "{request}");
        }
    }
}
