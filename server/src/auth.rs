//! Who calls. The tenant comes from here and never from a request's body.
//!
//! There is no authentication yet: every caller is the same principal of the tenant `default`. Tokens take this
//! function's place, and nothing else has to change.

use cairn_engine::Principal;
use cairn_engine::crypto::TenantId;
use tonic::metadata::MetadataMap;

use crate::error::Problem;

/// The tenant that exists from the first start on.
const DEFAULT_TENANT: TenantId = TenantId(1);

/// The name of a caller who shows no token. Part of what makes a request id unique, so it never changes.
const ANONYMOUS: &str = "anonymous";

/// The caller behind a request with this metadata.
///
/// # Errors
/// None yet: there are no credentials that could be wrong.
#[expect(clippy::unnecessary_wraps, reason = "the seam of authentication, which refuses")]
pub(crate) fn authenticate(_metadata: &MetadataMap) -> Result<Principal, Problem> {
    Ok(Principal::new(DEFAULT_TENANT, ANONYMOUS))
}
