//! Which connections a request asks for.

use crate::record::filter::Filter;

/// The parameters of `/v1/connections`.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) filter: Filter,
    /// Only so many of the recent ones, the newest.
    pub(super) limit: Option<usize>,
    /// Whether those that come are asked for.
    pub(super) follow: bool,
    /// Whether recent ones are, too, when those that come are.
    pub(super) recent: bool,
}

impl Query {
    /// Reads what is behind the question mark. An error is one line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let filter = &mut query.filter;
            let result = match &*name {
                "service" => value
                    .parse()
                    .map(|service| filter.service = Some(service))
                    .map_err(str::to_owned),
                "client" => value
                    .parse()
                    .map(|clients| filter.clients.push(clients))
                    .map_err(str::to_owned),
                "lost" => flag(&value).map(|lost| filter.lost = lost),
                "unexpected" => flag(&value).map(|unexpected| filter.unexpected = unexpected),
                "follow" => flag(&value).map(|follow| query.follow = follow),
                "recent" => flag(&value).map(|recent| query.recent = recent),
                "limit" => value
                    .parse()
                    .map(|limit| query.limit = Some(limit))
                    .map_err(|_no_number| "expected a number".to_owned()),
                _ => Err(
                    "there is no such parameter; there are service, client, lost, unexpected, \
                     follow, recent and limit"
                        .to_owned(),
                ),
            };
            result.map_err(|error| format!("{}: {error}", name.escape_debug()))?;
        }
        if !query.follow {
            query.recent = true;
        }
        Ok(query)
    }
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" | "" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_parameter_is_understood() {
        let query = "service=shop%2Fweb:http&client=203.0.113.0/24&client=2001:db8::1&lost=true\
                     &unexpected=0&follow=1&recent&limit=5";
        let query = Query::parse(query).expect("a query");
        let service = query.filter.service.expect("a Service");
        assert_eq!(service.port.as_deref(), Some("http"));
        assert_eq!(query.filter.clients.len(), 2);
        assert!(query.filter.lost && !query.filter.unexpected);
        assert!(query.follow && query.recent);
        assert_eq!(query.limit, Some(5));
    }

    #[test]
    fn without_following_the_recent_ones_are_asked_for() {
        assert!(Query::parse("").expect("a query").recent);
        assert!(!Query::parse("follow").expect("a query").recent);
    }

    #[rstest]
    #[case("servce=shop/web", "servce: there is no such parameter")]
    #[case("service=web", "service: expected NAMESPACE/SERVICE")]
    #[case("client=here", "client: expected a network or an address")]
    #[case("lost=maybe", "lost: expected true or false")]
    #[case("limit=-1", "limit: expected a number")]
    #[case("%0a=1", "\\n: there is no such parameter")]
    fn what_is_wrong_is_said_in_a_line(#[case] text: &str, #[case] start: &str) {
        let error = Query::parse(text).expect_err("wrong");
        assert!(error.starts_with(start), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(text in ".*") {
            let _ = Query::parse(&text);
        }
    }
}
