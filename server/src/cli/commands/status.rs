//! `cairn status`.

use super::Context;
use crate::cli::cluster::{digest_warning, status_to_json, status_to_text};
use crate::cli::exit::Result;
use crate::cli::output::Form;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let status = context.client.status().await?;
    match context.out.form {
        Form::Json => context.out.json(&status_to_json(&status))?,
        form => context.out.result(status_to_text(&status, form))?,
    }
    if let Some(warning) = digest_warning(&status) {
        context.out.note(warning);
    }
    Ok(())
}
