//! Why the API server gave no answer, or not the one that was asked for. One line each.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use kube::client::AuthError;
use kube::core::Status;

/// What stands in the way of talking to a cluster at all.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A kubeconfig that is missing, or is none.
    #[error("kubeconfig {}: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Those that KUBECONFIG names.
    #[error("KUBECONFIG: {0}")]
    KubeconfigVariable(String),
    /// The files that every pod has.
    #[error("this pod's service account: {0}")]
    ServiceAccount(String),
    /// No such context.
    #[error("there is no context {context}; {there_are}")]
    Context {
        /// The one that was asked for.
        context: String,
        /// Those that there are.
        there_are: String,
    },
    /// None was asked for and none is current.
    #[error("the kubeconfig has no current context; give --context; {0}")]
    NoContext(String),
    /// Nothing says where the cluster is.
    #[error(
        "nothing says where the cluster is: KUBECONFIG is not set, this is no pod, and there is no \
         ~/.kube/config; give --kubeconfig, or --cluster-state"
    )]
    Nowhere,
    /// The credentials could not be made use of.
    #[error("the credentials for the API server {server}: {reason}")]
    Credentials {
        /// Its address.
        server: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// Why a request had no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nobody is there, or nobody who can be understood.
    #[error("the API server {server} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the system, or TLS, said.
        reason: String,
    },
    /// The answer broke off.
    #[error("the API server {server} broke off its answer: {reason}")]
    BrokeOff {
        /// Its address.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// No answer in time.
    #[error("the API server {server} did not answer within {} s", within.as_secs())]
    TimedOut {
        /// Its address.
        server: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// 401.
    #[error(
        "the API server {server} does not accept the credentials (401 Unauthorized): they are \
         wrong or have expired"
    )]
    Unauthorized {
        /// Its address.
        server: String,
    },
    /// What would have to be sent along cannot be had: a plugin failed, a file is gone.
    #[error("the credentials for the API server {server}: {reason}")]
    Credentials {
        /// Its address.
        server: String,
        /// What is wrong with them.
        reason: String,
    },
    /// 403.
    #[error(
        "the API server does not let one {verb} {resource} (403 Forbidden): give the user or \
         service account a ClusterRole with the rule {{apiGroups: [\"{group}\"], resources: \
         [{resource}], verbs: [{verbs}]}}"
    )]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// With what.
        resource: String,
        /// The API group of that.
        group: String,
        /// All verbs that are needed.
        verbs: &'static str,
    },
    /// Another status than success.
    #[error("the API server answered {code} for {resource}: {message}")]
    Status {
        /// What was asked for.
        resource: String,
        /// The HTTP status.
        code: u16,
        /// Its own words, on one line.
        message: String,
    },
    /// What it sent cannot be read.
    #[error("what the API server sent of {resource} cannot be read: {reason}")]
    Unreadable {
        /// What was asked for.
        resource: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ApiError {
    /// The versions that one knows are too old: all must be listed anew (410 Gone).
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Status { code: 410, .. })
    }

    /// Not now, but soon.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Status { code: 429, .. })
    }

    /// The resource is not to be had: not allowed, or not served.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Forbidden { .. } | Self::Status { code: 404, .. }
        )
    }

    /// The server does not know of the resource.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Status { code: 404, .. })
    }

    /// Whether it says nothing about what was asked for, so that the same may be asked again.
    pub(super) fn may_be_asked_again(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::BrokeOff { .. }
            | Self::TimedOut { .. }
            | Self::Unauthorized { .. }
            | Self::Credentials { .. } => true,
            Self::Forbidden { .. } | Self::Status { .. } | Self::Unreadable { .. } => {
                self.is_busy()
            }
        }
    }
}

/// What an API server said, on one line and not too long.
pub(super) fn message(status: &Status) -> String {
    let message = if status.message.is_empty() {
        &status.reason
    } else {
        &status.message
    };
    one_line(message)
}

/// The first line of any text, without what would move a cursor.
pub fn one_line(text: &str) -> String {
    const LENGTH_MAX: usize = 300;
    let line = text.trim().lines().next().unwrap_or_default();
    let shown = line.chars().take(LENGTH_MAX);
    shown
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// The last error of a chain, which is the one that knows.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    let root = chain(error).last();
    root.map_or_else(String::new, |root| one_line(&root.to_string()))
}

/// The error of the credentials in a chain.
pub(super) fn find_credentials<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a AuthError> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// An error and its causes. A chain that bites its tail must not hang us.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    const DEPTH_MAX: usize = 16;
    std::iter::successors(Some(error), |&error| error.source()).take(DEPTH_MAX)
}

/// What is wrong with credentials. A plugin's own output may hold secrets, its complaints do not.
pub(super) fn credentials(error: &AuthError) -> String {
    match error {
        // The command as it was run has the environment in it.
        AuthError::AuthExecRun { cmd: _, out } => format!(
            "their plugin failed ({}): {}",
            out.status,
            one_line(&String::from_utf8_lossy(&out.stderr))
        ),
        other => one_line(&other.to_string()),
    }
}
