# What Mail::DKIM (Debian: libmail-dkim-perl) finds in the messages that messages.py wrote.
#
#     mail_dkim.pl FOLDER
#
# Prints a line for each message: its file, and for each of its signatures 1 if it passes, else 0.
use strict;
use warnings;

# For x=, as in messages.py: before Mail::DKIM is compiled.
BEGIN { *CORE::GLOBAL::time = sub { 1_700_000_000 } }

use JSON::PP;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS;

my ($folder) = @ARGV;

sub slurp {
    my ($name) = @_;
    open my $file, '<:raw', "$folder/$name" or die "$name: $!";
    local $/;
    return scalar <$file>;
}

my $keys = decode_json(slurp('keys.json'));

sub record {
    my ($name) = @_;
    my $text = $keys->{$name} or return;
    my @strings = $text =~ /(.{1,255})/gs;
    return Net::DNS::RR->new(owner => $name, type => 'TXT', txtdata => \@strings);
}

{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query_async = sub {
        my ($name, $type, %options) = @_;
        my $key = eval { $options{Callbacks}{Success}->(record($name)) };
        my $error = $@;
        return sub { die $error if $error; return $key };
    };
}

for my $line (split /\n/, slurp('results.jsonl')) {
    my $name     = decode_json($line)->{file};
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(slurp($name));
    $verifier->CLOSE;
    print join(' ', $name, map { $_->result eq 'pass' ? 1 : 0 } $verifier->signatures), "\n";
}
