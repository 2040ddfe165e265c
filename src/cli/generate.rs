//! `completions` and `man`: made from the definition of the command line, so that they cannot differ from it.

use super::called::Done;
use super::out::CliError;
use super::talk::Talk;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print completions for a shell, such as: matriarch completions bash > /etc/bash_completion.d/matriarch
#[derive(Args, Debug)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, such as: matriarch man > /usr/local/share/man/man1/matriarch.1
#[derive(Args, Debug)]
pub struct Man {
    /// The page of this command instead, such as: switchover, or: member add
    command: Vec<String>,
}

impl Completions {
    pub(super) fn execute(self, command: Command, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut command = offered(&command);
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, talk.called.program(), &mut script);
        talk.print(&String::from_utf8_lossy(&script))?;
        Ok(Done::Whole)
    }
}

/// The same without what is hidden: nobody is to be offered it.
fn offered(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut shown = Command::new(command.get_name().to_owned())
        .args(arguments.cloned())
        .subcommands(subcommands.map(offered))
        .aliases(command.get_visible_aliases().map(str::to_owned));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown
}

impl Man {
    pub(super) fn execute(self, command: Command, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let program = talk.called.program();
        let mut found = &command;
        for name in &self.command {
            found = found
                .find_subcommand(name)
                .ok_or_else(|| CliError::Usage(format!("there is no command {}", self.command.join(" "))))?;
        }
        let name = |between: &str| {
            [&[program.to_owned()], self.command.as_slice()]
                .concat()
                .join(between)
        };
        let command = found.clone().display_name(name("-")).bin_name(name(" "));
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(CliError::Output)?;
        talk.print(&String::from_utf8_lossy(&page))?;
        Ok(Done::Whole)
    }
}
