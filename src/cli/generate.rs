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
    /// The page of this command instead
    command: Option<String>,
}

impl Completions {
    pub(super) fn execute(self, mut command: Command, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, talk.called.program(), &mut script);
        talk.print(&String::from_utf8_lossy(&script))?;
        Ok(Done::Whole)
    }
}

impl Man {
    pub(super) fn execute(self, command: Command, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let program = talk.called.program();
        let command = match &self.command {
            None => command,
            Some(name) => match command.find_subcommand(name) {
                Some(found) => found.clone().display_name(format!("{program}-{name}")),
                None => return Err(CliError::Usage(format!("there is no command {name}"))),
            },
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(CliError::Output)?;
        talk.print(&String::from_utf8_lossy(&page))?;
        Ok(Done::Whole)
    }
}
