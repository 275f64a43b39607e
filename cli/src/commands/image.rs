//! `forge push` to a registry and `forge pull` from one: formations as images, images as formations.

use serde_json::json;
use store::format::{Attachment, Compression, Options};
use store::registry::{self, How, Session};
use store::{FormationId, Store};

use crate::args::AttachChoice;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{registries, render};

/// Sends formations: one, or several of different platforms under one index. Prints the image's pinned reference.
pub fn push(
    store: &Store,
    formations: &[FormationId],
    address: &str,
    attach: &[AttachChoice],
    compression: Compression,
    context: &Context,
) -> Result<ExitCode> {
    let reference = registries::reference(address)?;
    if reference.digest.is_some() {
        let failure = Failure::new(code::USAGE, format!("`{address}`: what is pushed has the digest that it has"));
        return Err(failure.hint("give a tag, or none: then it is the formation's version"));
    }
    let attach = attach.iter().map(|what| match what {
        AttachChoice::Sbom => Attachment::Sbom,
        AttachChoice::Provenance => Attachment::Provenance,
    });
    let options = Options { attach: attach.collect(), compression, remembered: true, ..Options::default() };
    let access = registries::access(context)?;
    let session = Session::new(&access, &reference);
    let pushed = registry::push(store, &session, formations, &options, reference.tag.as_deref())?;
    let tags = pushed.tags.iter().filter(|tag| !tag.starts_with("forge-"));
    let images: Vec<String> = tags.map(|tag| reference.tagged(tag).pinned(pushed.digest).to_string()).collect();
    if !context.global.quiet {
        let count = |how| pushed.parts.iter().filter(|part| part.how == how).count();
        let (sent, mounted, there) = (count(How::Sent), count(How::Mounted), count(How::There));
        let bytes = render::size(pushed.sent());
        say!("pushed {sent} parts, {bytes}; {mounted} from another repository, {there} were there");
    }
    if context.global.json {
        let part = |part: &registry::PushedPart| {
            json!({
                "digest": part.descriptor.digest.to_string(),
                "media_type": part.descriptor.media_type,
                "size": part.descriptor.size,
                "how": part.how.as_str(),
            })
        };
        super::print_json(&json!({
            "schema": 1,
            "images": images,
            "digest": pushed.digest.to_string(),
            "tags": pushed.tags,
            "sent": pushed.sent(),
            "formations": formations.iter().map(FormationId::to_string).collect::<Vec<_>>(),
            "parts": pushed.parts.iter().map(part).collect::<Vec<_>>(),
        }))?;
    } else {
        super::print(&format!("{}\n", images.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes an image in as a formation, names it, and prints its id.
pub fn pull(address: &str, tag: Option<&str>, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = registries::formation(&store, address, None, context)?;
    let formation = store.formation(id)?;
    store.set_root(&formation.name, id)?;
    if let Some(tag) = tag {
        store.set_root(tag, id)?;
    }
    if context.global.json {
        super::print_json(&json!({
            "schema": 1,
            "id": id.to_string(),
            "name": formation.name,
            "version": formation.version,
            "platform": formation.platform,
            "image": address,
        }))?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
