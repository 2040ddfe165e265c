//! Which members an action is about, asked for where the arguments do not say.

use super::cluster::{Cluster, Member};
use super::out::CliError;
use super::role::Role;
use super::sheet::Format;
use super::talk::Talk;

/// What was typed.
pub(super) struct Choice<'a> {
    /// Names; empty is everybody, or a question.
    pub(super) names: &'a [String],
    /// `-r`.
    pub(super) role: Option<Role>,
    /// The role where none was typed.
    pub(super) usual: Role,
    /// The verb for questions.
    pub(super) action: &'static str,
    /// Whether nobody named means everybody.
    pub(super) nobody_is_everybody: bool,
    /// Whether nothing is asked.
    pub(super) force: bool,
}

impl Choice<'_> {
    /// Shows the table and finds the members, in the table's order.
    pub(super) fn made(&self, cluster: &Cluster, talk: &mut Talk<'_>) -> Result<Vec<Member>, CliError> {
        talk.print(&cluster.table(Format::Pretty))?;
        let role = self.role.unwrap_or(self.usual);
        let mut members = cluster.members();
        members.retain(|member| role.fits(member));
        if members.is_empty() && self.names.is_empty() {
            return Err(CliError::Refused(format!(
                "cluster {} has no member to {}",
                cluster.name(),
                self.action
            )));
        }
        let mut names = self.names.to_vec();
        if !names.is_empty() {
            let is_member = |name: &String| members.iter().any(|member| member.name == *name);
            let strangers: Vec<String> = names.extract_if(.., |name| !is_member(name)).collect();
            if names.is_empty() {
                return Err(CliError::Refused(format!(
                    "No {} among provided members",
                    self.shown(role)
                )));
            }
            for stranger in strangers {
                talk.note(&format!(
                    "note: {stranger} is passed over, no member of this name fits"
                ));
            }
        } else if self.nobody_is_everybody {
            return Ok(members);
        } else if !self.force {
            let all: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            let question = format!(
                "Which member do you want to {} [{}]?",
                self.action,
                all.join(", ")
            );
            let name = talk.ask(&question, Some(""))?;
            if !all.contains(&name.as_str()) {
                return Err(CliError::Refused(format!("{name} is not a member of cluster")));
            }
            names.push(name);
        }
        members.retain(|member| names.contains(&member.name));
        Ok(members)
    }

    /// The word that stood there when nobody typed one has quotes in the recorded answers.
    fn shown(&self, role: Role) -> String {
        match self.role {
            None if role == Role::Any => format!("'{role}'"),
            _ => role.to_string(),
        }
    }
}

/// Names with commas between.
pub(super) fn names(members: &[Member]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.join(", ")
}

/// Asks whether these members are meant.
pub(super) fn confirm_members(
    talk: &mut Talk<'_>,
    force: bool,
    action: &str,
    members: &[Member],
    when: &str,
) -> Result<(), CliError> {
    if force {
        return Ok(());
    }
    let question = format!(
        "Are you sure you want to {action} members {}{when}?",
        names(members)
    );
    if talk.confirm(&question)? {
        Ok(())
    } else {
        Err(CliError::Refused(format!("Aborted {action}")))
    }
}
