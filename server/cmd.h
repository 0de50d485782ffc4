/* The subcommands of the program, each in a file of its own: arguments in, exit code out (0 done, 1 failed, 2
 * usage; of adapters: 3 no server). Thread: main. Messages for people go to standard error, results to
 * standard output. */
#ifndef LK_SERVER_CMD_H
#define LK_SERVER_CMD_H

int cmd_serve(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_adapters(int argc, char **argv);
int cmd_tenants(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_fetch(int argc, char **argv);
int cmd_stamp(int argc, char **argv);
int cmd_shrink(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_check_config(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
