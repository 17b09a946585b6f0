//! What Kubernetes allows as a name. Who holds a name against this can put it into a path, a selector
//! or a line of a log.

/// Whether a text is a label of the DNS, as the names of namespaces are (`apimachinery`,
/// `IsDNS1123Label`).
pub fn is_dns_label(name: &str) -> bool {
    const LONGEST: usize = 63;
    name.len() <= LONGEST && is_part(name)
}

/// Whether a text is such labels with dots between them, as the names of Pods and `ConfigMap`s are;
/// only the whole has a greatest length (`apimachinery`, `IsDNS1123Subdomain`).
pub fn is_dns_subdomain(name: &str) -> bool {
    const LONGEST: usize = 253;
    name.len() <= LONGEST && name.split('.').all(is_part)
}

fn is_part(name: &str) -> bool {
    let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && !name.starts_with('-') && !name.ends_with('-') && name.chars().all(is_known)
}
