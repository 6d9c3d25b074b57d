//! One audit event, as far as it says something of a Lease.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The annotation by which the API server says that it let a write pass a webhook that did not answer
/// (`k8s.io/apiserver/pkg/admission/plugin/webhook/validating/dispatcher.go`).
const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// How much of a write the audit log holds (`audit.k8s.io/v1`: `level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Who wrote what when, without bodies.
    Metadata,
    /// What was asked for, too.
    Request,
    /// What was stored, too.
    RequestResponse,
}

/// What an event says of a Lease.
#[derive(Clone, Debug)]
pub struct Event {
    /// The API server's own time when it had answered: the write was stored no later.
    pub time: Timestamp,
    /// One for each request.
    pub audit_id: String,
    /// What it asks for.
    pub verb: Verb,
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// How much the log holds of it.
    pub level: Level,
    /// The HTTP status.
    pub code: u16,
    /// The API server's reason, where it refused.
    pub refusal: Option<String>,
    /// Who the write counts as.
    pub user: String,
    /// That user's groups.
    pub groups: Vec<String>,
    /// The pod that the user's token is bound to.
    pub pod: Option<String>,
    /// What tells this writer from others: the pod's uid, or the token's id, or user, address and program.
    pub writer: String,
    /// The field manager that the write names, or that the API server makes of the program's name.
    pub field_manager: Option<String>,
    /// Whether nothing was to be stored.
    pub dry_run: bool,
    /// Whether a webhook was passed over.
    pub failed_open: bool,
    /// What the client asked for, where the log does not hold what was stored.
    pub request: Option<Value>,
    /// What was stored.
    pub response: Option<Value>,
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PUT, which may create.
    Update,
    /// Any patch or apply, which may create.
    Patch,
    /// DELETE of one.
    Delete,
}

/// What an event is.
pub(super) enum Reading {
    Write(Box<Event>),
    /// Of another object, of reads, or of a stage at which nothing has happened yet.
    Other,
    /// Of a Lease, and something that it must say is missing or cannot be read.
    Unreadable,
}

impl Event {
    pub(super) fn of(mut event: Map<String, Value>) -> Reading {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let reference = event.get("objectRef").cloned().unwrap_or_default();
        let is_lease = text(reference.get("resource")) == "leases"
            && text(reference.get("apiGroup")) == "coordination.k8s.io"
            && reference.get("subresource").is_none();
        let verb = match text(event.get("verb")).as_str() {
            "create" => Verb::Create,
            "update" => Verb::Update,
            "patch" => Verb::Patch,
            "delete" => Verb::Delete,
            _ => return Reading::Other,
        };
        // The stage before carries no outcome, and a copy of the rest.
        if !is_lease || text(event.get("stage")) != "ResponseComplete" {
            return Reading::Other;
        }
        let level = match text(event.get("level")).as_str() {
            "Metadata" => Level::Metadata,
            "Request" => Level::Request,
            "RequestResponse" => Level::RequestResponse,
            _ => return Reading::Unreadable,
        };
        let completed = event.get("stageTimestamp").and_then(Value::as_str);
        let Some(time) = completed.and_then(|time| time.parse::<Timestamp>().ok()) else {
            return Reading::Unreadable;
        };
        let status = event.get("responseStatus").cloned().unwrap_or_default();
        let code = status.get("code").and_then(Value::as_u64);
        let Some(code) = code.and_then(|code| u16::try_from(code).ok()) else {
            return Reading::Unreadable;
        };
        let uri = text(event.get("requestURI"));
        let parameter = |name: &str| {
            let (_, query) = uri.split_once('?')?;
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let request = event.remove("requestObject").filter(|body| !body.is_null());
        let response = event
            .remove("responseObject")
            .filter(|body| body.get("kind").and_then(Value::as_str) == Some("Lease"));
        let body = response.as_ref().or(request.as_ref());
        // By generateName, only the answer has it.
        let name = Some(text(reference.get("name")))
            .filter(|name| !name.is_empty())
            .or_else(|| Some(text(body?.pointer("/metadata/name"))))
            .filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Reading::Unreadable;
        };
        // Who the write counts as; the token's own claims are the caller's.
        let caller = event.get("user").cloned().unwrap_or_default();
        let is_impersonated = event.get("impersonatedUser").is_some_and(|user| !user.is_null());
        let counted = if is_impersonated {
            event.get("impersonatedUser").cloned().unwrap_or_default()
        } else {
            caller
        };
        let claim = |name: &str| {
            let claim = counted.pointer(&format!("/extra/authentication.kubernetes.io~1{name}/0"));
            claim.and_then(Value::as_str).map(str::to_owned)
        };
        let user = text(counted.get("username"));
        let address = last_of(&event, "sourceIPs");
        let program = text(event.get("userAgent"));
        let writer = claim("pod-uid")
            .or_else(|| claim("credential-id"))
            .unwrap_or_else(|| format!("{user} {address} {program}"));
        let annotations = event.get("annotations").and_then(Value::as_object);
        let failed_open =
            annotations.is_some_and(|annotations| annotations.keys().any(|key| key.starts_with(FAILED_OPEN)));
        Reading::Write(Box::new(Self {
            time,
            audit_id: text(event.get("auditID")),
            verb,
            namespace: text(reference.get("namespace")),
            name,
            level,
            code,
            refusal: (code >= 400)
                .then(|| text(status.get("message")))
                .filter(|message| !message.is_empty()),
            groups: counted
                .get("groups")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|group| Some(group.as_str()?.to_owned()))
                .collect(),
            pod: claim("pod-name"),
            user,
            writer,
            field_manager: parameter("fieldManager").or_else(|| {
                // The API server takes the program's name for it (`k8s.io/apiserver/pkg/endpoints/handlers/create.go`).
                let name = program.split('/').next().unwrap_or_default();
                (!name.is_empty()).then(|| name.to_owned())
            }),
            dry_run: parameter("dryRun").is_some(),
            failed_open,
            // Of use only where the log does not hold what came of it.
            request: request.filter(|_| response.is_none()),
            response,
        }))
    }

    /// Whether it was stored, as far as the answer tells.
    pub fn is_stored(&self) -> bool {
        (200..300).contains(&self.code) && !self.dry_run
    }

    /// Whether it may have been stored although the answer says that time was up
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/finisher`).
    pub fn may_be_stored(&self) -> bool {
        self.code == 504 && !self.dry_run
    }
}

/// The last of a list of texts: of addresses, the one that the client cannot make up.
fn last_of(event: &Map<String, Value>, list: &str) -> String {
    let last = event
        .get(list)
        .and_then(Value::as_array)
        .and_then(|list| list.last());
    last.and_then(Value::as_str).unwrap_or_default().to_owned()
}
